//! Orders of Odoo's point of sale, by their ids: what to ask, and what came back.
//!
//! Two ways with one set of questions: `/web/dataset/call_kw` (JSON-RPC, a session's cookie in a header) and `/json/2/`
//! (Odoo 19, an API key in a header). Errors of the first come with status 200.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use tillwatch_sdk::parse::{Decimal, Offset, Wrong, time_ms};
use tillwatch_sdk::{HttpRequest, HttpResponse};

use crate::Rules;
use crate::row::Reading;
use crate::seen::Key;
use crate::tender::Paid;
use crate::transaction::{Outcome, Sale};

/// Orders of one answer: well below the 256 KiB that an answer may have.
pub(crate) const ORDERS_MAX: usize = 200;
/// Payments of so many orders.
const PAYMENTS_MAX: usize = 1_000;
/// An order that is paid late has an id that was passed already.
pub(crate) const OVERLAP: i64 = 200;
/// Pages that one call asks for, each with its payments; the agent allows 16 questions.
pub(crate) const PAGES_MAX: usize = 3;
const NAME_BYTES_MAX: usize = 80;

/// How Odoo is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Api {
    /// JSON-RPC, up to Odoo 18.
    CallKw,
    /// From Odoo 19.
    Json2,
}

/// An order as Odoo writes it; absent values are `false`.
#[derive(Deserialize)]
pub(crate) struct Order<'a> {
    pub(crate) id: i64,
    #[serde(borrow)]
    date_order: &'a RawValue,
    #[serde(borrow)]
    amount_total: &'a RawValue,
    #[serde(borrow)]
    amount_tax: &'a RawValue,
    #[serde(borrow)]
    state: &'a RawValue,
    #[serde(borrow)]
    config_id: &'a RawValue,
    #[serde(borrow)]
    currency_id: &'a RawValue,
}

#[derive(Deserialize)]
struct Payment<'a> {
    #[serde(borrow)]
    pos_order_id: &'a RawValue,
    #[serde(borrow)]
    payment_method_id: &'a RawValue,
    #[serde(borrow)]
    amount: &'a RawValue,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Failure<'a>>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow, default)]
    data: Option<FailureData<'a>>,
}

#[derive(Deserialize)]
struct FailureData<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

impl Api {
    /// Orders whose id is larger, smallest first.
    pub(crate) fn orders(self, after: i64) -> HttpRequest {
        let domain = format!("[[\"id\",\">\",{after}],[\"state\",\"in\",[\"paid\",\"done\",\"invoiced\",\"cancel\"]]]");
        let fields = "[\"date_order\",\"amount_total\",\"amount_tax\",\"state\",\"config_id\",\"currency_id\"]";
        self.search("pos.order", &domain, fields, ORDERS_MAX)
    }

    /// The payments of these orders.
    pub(crate) fn payments(self, orders: &[Order<'_>]) -> HttpRequest {
        let ids: Vec<String> = orders.iter().map(|order| order.id.to_string()).collect();
        let domain = format!("[[\"pos_order_id\",\"in\",[{}]]]", ids.join(","));
        let fields = "[\"pos_order_id\",\"payment_method_id\",\"amount\"]";
        self.search("pos.payment", &domain, fields, PAYMENTS_MAX)
    }

    fn search(self, model: &str, domain: &str, fields: &str, limit: usize) -> HttpRequest {
        let words = format!("\"domain\":{domain},\"fields\":{fields},\"order\":\"id\",\"limit\":{limit}");
        let request = match self {
            Self::CallKw => HttpRequest::post(
                format!(
                    "{{\"jsonrpc\":\"2.0\",\"method\":\"call\",\"id\":1,\"params\":{{\"model\":\"{model}\",\
                     \"method\":\"search_read\",\"args\":[],\"kwargs\":{{{words}}}}}}}"
                )
                .as_bytes(),
            ),
            Self::Json2 => {
                HttpRequest::post(format!("{{{words}}}").as_bytes()).path(&format!("/json/2/{model}/search_read"))
            }
        };
        request.header("content-type", "application/json")
    }
}

/// The orders of an answer; the error says why there are none and quotes nothing but the name of Odoo's fault.
pub(crate) fn orders(response: &HttpResponse) -> Result<Vec<Order<'_>>, String> {
    serde_json::from_str(result(response)?).map_err(|_quotes| "odoo's orders have another shape".to_owned())
}

/// What was paid, by order.
pub(crate) fn payments(response: &HttpResponse, rules: &Rules) -> Result<BTreeMap<i64, Paid>, String> {
    let other = |_quotes| "odoo's payments have another shape".to_owned();
    let payments: Vec<Payment<'_>> = serde_json::from_str(result(response)?).map_err(other)?;
    if payments.len() >= PAYMENTS_MAX {
        return Err(format!("{ORDERS_MAX} orders have {PAYMENTS_MAX} payments or more"));
    }
    let mut paid: BTreeMap<i64, Paid> = BTreeMap::new();
    for payment in payments {
        let (Some((order, _)), Ok(amount)) = (id_and_name(payment.pos_order_id), minor(payment.amount, rules)) else {
            continue;
        };
        let method = id_and_name(payment.payment_method_id);
        let tender = rules.tenders.of(&method.map(|(_, name)| name).unwrap_or_default());
        paid.entry(order).or_default().add(tender, amount);
    }
    Ok(paid)
}

fn result(response: &HttpResponse) -> Result<&str, String> {
    if !response.is_success() {
        return Err(format!("odoo answers with status {}", response.status));
    }
    let body = std::str::from_utf8(&response.body).map_err(|_bytes| "odoo's answer is no text".to_owned())?;
    if body.trim_ascii_start().starts_with('[') {
        return Ok(body);
    }
    let answer: Answer<'_> =
        serde_json::from_str(body).map_err(|_quotes| "odoo's answer is no JSON-RPC: is the path right?".to_owned())?;
    match (answer.result, answer.error) {
        (Some(result), None) => Ok(result.get()),
        (_, failure) => {
            let name = failure.and_then(|failure| failure.data?.name).unwrap_or_default();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
            let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain);
            Err(format!(
                "odoo answers with an error: {}",
                if is_name { &name } else { "unnamed" }
            ))
        }
    }
}

impl Order<'_> {
    pub(crate) fn read(&self, paid: Option<Paid>, rules: &Rules) -> Reading {
        // Odoo's database holds UTC.
        let time = string(self.date_order).ok_or(Wrong::Missing);
        let time_ms = time.and_then(|time| time_ms(&time, Offset::default()));
        let day = time_ms.map_or(0, |time_ms| rules.hours.business_day(time_ms));
        Reading {
            key: Some(Key::new(day, &["odoo"], &self.id.to_string())),
            outcome: time_ms.and_then(|time_ms| self.outcome(time_ms, paid, rules)),
        }
    }

    fn outcome(&self, time_ms: u64, paid: Option<Paid>, rules: &Rules) -> Result<Outcome, Wrong> {
        let lane = id_and_name(self.config_id)
            .map(|(id, _)| id.to_string())
            .unwrap_or_default();
        match string(self.state).as_deref() {
            Some("paid" | "done" | "invoiced") => {}
            Some("cancel") => {
                let taken_back = None;
                return Ok(Outcome::Void { time_ms, taken_back });
            }
            _ => return Err(Wrong::Missing),
        }
        if let Some((_, currency)) = id_and_name(self.currency_id)
            && !rules.currency.is(&currency)
        {
            return Err(Wrong::Currency);
        }
        let amount_minor = minor(self.amount_total, rules)?;
        Ok(Outcome::Sale(Sale {
            time_ms,
            lane,
            amount_minor,
            tax_minor: minor(self.amount_tax, rules).ok(),
            items: None,
            is_return: amount_minor < 0,
            paid: paid.unwrap_or_default(),
            flaw: None,
        }))
    }
}

fn minor(amount: &RawValue, rules: &Rules) -> Result<i64, Wrong> {
    Decimal::parse(amount.get())?.units(rules.currency.decimals())
}

fn string(json: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(json.get()).ok().map(Cow::Owned)
}

/// `[2, "USD"]`, or only the id.
fn id_and_name(json: &RawValue) -> Option<(i64, String)> {
    let pair = serde_json::from_str::<(i64, String)>(json.get()).ok();
    pair.or_else(|| Some((serde_json::from_str(json.get()).ok()?, String::new())))
}
