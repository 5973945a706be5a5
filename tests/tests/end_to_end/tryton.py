"""A point of sale of Tryton that sells: prints a JSON line when it is ready and one with its own totals at the end."""

import json
import os
import random
import sys
import time
from decimal import Decimal

FOLDER, SALES = sys.argv[1], int(sys.argv[2])
with open(os.path.join(FOLDER, "trytond.conf"), "w", encoding="utf-8") as settings:
    settings.write(f"[database]\nuri = sqlite://\npath = {FOLDER}\n")
os.environ["TRYTOND_CONFIG"] = settings.name
os.environ["TRYTOND_DATABASE_URI"] = "sqlite://"
os.environ["DB_NAME"] = "pos"

from trytond import config  # noqa: E402

config.update_etc(settings.name)

from proteus import Model, Wizard  # noqa: E402
from proteus import config as client  # noqa: E402
from trytond.modules.account.tests.tools import create_chart, create_fiscalyear, create_tax, get_accounts  # noqa: E402
from trytond.modules.account_invoice.tests.tools import set_fiscalyear_invoice_sequences  # noqa: E402
from trytond.modules.company.tests.tools import create_company  # noqa: E402
from trytond.tests.test_tryton import create_db  # noqa: E402


def set_up():
    """A company with a till, two ways to pay, and goods that are taxed."""
    create_db("pos", "en")
    client.set_trytond("pos", config_file=settings.name)
    modules = Model.get("ir.module")
    modules.click(modules.find([("name", "=", "sale_point")]), "activate")
    Wizard("ir.module.activate_upgrade").execute("upgrade")
    create_company()
    create_chart()
    set_fiscalyear_invoice_sequences(create_fiscalyear()).click("create_period")
    accounts = get_accounts()
    tax = create_tax(Decimal("0.19"))
    tax.save()
    category = Model.get("product.category")(name="Goods", accounting=True)
    category.account_revenue = accounts["revenue"]
    category.customer_taxes.append(tax)
    category.save()
    unit, = Model.get("product.uom").find([("name", "=", "Unit")])
    goods = []
    for number, price in enumerate(["0.49", "12.00", "3.99", "149.95", "1.29"]):
        template = Model.get("product.template")(name=f"goods {number}", type="service", salable=True)
        template.default_uom = unit
        template.account_category = category
        template.gross_price = Decimal(price)
        template.list_price = (Decimal(price) / Decimal("1.19")).quantize(Decimal("0.0001"))
        template.save()
        goods.extend(template.products)
    places = Model.get("stock.location")
    points = []
    for name in ("till 1", "till 2"):
        point = Model.get("sale.point")(name=name)
        point.journal, = Model.get("account.journal").find([("type", "=", "revenue")], limit=1)
        kind, = Model.get("ir.sequence.type").find([("name", "=", "POS")], limit=1)
        point.sequence = Model.get("ir.sequence.strict")(name=name, company=point.company, sequence_type=kind)
        point.sequence.save()
        point.storage_location, = places.find([("code", "=", "STO")])
        point.return_location = point.storage_location
        point.customer_location, = places.find([("code", "=", "CUS")])
        point.save()
        points.append(point)
    ways = {}
    for name in ("Cash", "Terminal"):
        way = Model.get("sale.point.payment.method")(name=name, cash=name == "Cash")
        way.account = accounts["cash"]
        way.save()
        ways[name] = way
    return points, goods, ways


def ring(point, goods, dice):
    """Rings up what a customer brought."""
    sale = Model.get("sale.point.sale")(point=point)
    for _ in range(dice.randint(1, 4)):
        line = sale.lines.new()
        line.product = dice.choice(goods)
        # What comes back has a negative quantity.
        line.quantity = dice.choice([1, 1, 2, 3]) * (-1 if dice.random() < 0.1 else 1)
    sale.save()
    return sale


def pay(sale, ways, dice):
    """By card to the cent, or with a note and change."""
    due = sale.total
    payment = sale.click("pay")
    if due > 0 and dice.random() < 0.5:
        payment.form.method = ways["Terminal"]
        payment.form.amount = due
        payment.execute("pay")
        return
    payment.form.method = ways["Cash"]
    payment.form.amount = due if due <= 0 else Decimal(int(due / 50) * 50 + 50)
    payment.execute("pay")
    if payment.form.amount and sale.amount_to_pay:
        payment.form.method = ways["Cash"]
        payment.execute("pay")


def main():
    dice = random.Random(412)
    points, goods, ways = set_up()
    print(json.dumps({"ready": True}), flush=True)
    parked = []
    for number in range(SALES):
        sale = ring(points[number % 2], goods, dice)
        if not sale.total or number % 7 == 3:
            # Parked: paid after later ones, or never.
            parked.append(sale)
            continue
        pay(sale, ways, dice)
        if number % 5 == 0:
            sale.click("post")
        time.sleep(0.02)
    for sale in parked[1:]:
        if sale.total:
            pay(sale, ways, dice)
    done = Model.get("sale.point.sale").find([("state", "in", ["done", "posted"])])
    total = sum((sale.total for sale in done), Decimal(0))
    back = sum(1 for sale in done if sale.total < 0)
    print(json.dumps({"sales": len(done), "minor": int(total * 100), "returns": back}), flush=True)


main()
