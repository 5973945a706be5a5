//! Orders of Odoo's point of sale, by their ids: what to ask, and what came back.
//!
//! Three ways with one set of questions: `/jsonrpc` (a key in the body, where the agent puts it in place of a null),
//! `/web/dataset/call_kw` (a session's cookie in a header) and `/json/2/` (Odoo 19, a key in a header).
//! Errors of the first two come with status 200.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
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
/// Errors of Odoo that are told by their names; any other text of an answer is not ours to tell.
const ERRORS: [&str; 7] = [
    "odoo.exceptions.AccessDenied",
    "odoo.exceptions.AccessError",
    "odoo.exceptions.MissingError",
    "odoo.exceptions.UserError",
    "odoo.exceptions.ValidationError",
    "odoo.http.SessionExpiredException",
    "werkzeug.exceptions.NotFound",
];

/// How Odoo is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Api {
    /// JSON-RPC with a session, up to Odoo 18.
    CallKw,
    /// JSON-RPC with a key or password, up to Odoo 19.
    Jsonrpc,
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

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) api: Api,
    database: String,
    login: String,
    /// As Odoo says it, of `/jsonrpc` only.
    user: Option<i64>,
}

impl Account {
    /// The error says what to change.
    pub(crate) fn new(api: Api, database: &str, login: &str) -> Result<Self, String> {
        if api == Api::Jsonrpc && (database.is_empty() || login.is_empty()) {
            return Err("odoo_api: jsonrpc needs odoo_database and odoo_login".to_owned());
        }
        Ok(Self {
            api,
            database: database.to_owned(),
            login: login.to_owned(),
            user: None,
        })
    }

    /// What to ask before orders, if anything.
    pub(crate) fn authenticate(&self) -> Option<HttpRequest> {
        if self.api != Api::Jsonrpc || self.user.is_some() {
            return None;
        }
        let words = json!([self.database, self.login, null, {}]);
        Some(rpc(
            &json!({"service": "common", "method": "authenticate", "args": words}),
        ))
    }

    pub(crate) fn authenticated(&mut self, response: &HttpResponse) -> Result<(), String> {
        // `false` for a wrong login or key.
        self.user = serde_json::from_str(result(response)?).ok();
        self.user
            .map_or_else(|| Err("odoo knows no such login and key".to_owned()), |_known| Ok(()))
    }

    pub(crate) fn forget(&mut self) {
        self.user = None;
    }

    /// Orders whose id is larger, smallest first.
    pub(crate) fn orders(&self, after: i64) -> HttpRequest {
        let states = ["paid", "done", "invoiced", "cancel"];
        let fields = [
            "date_order",
            "amount_total",
            "amount_tax",
            "state",
            "config_id",
            "currency_id",
        ];
        let domain = json!([["id", ">", after], ["state", "in", states]]);
        self.search("pos.order", &domain, &fields, ORDERS_MAX)
    }

    /// The payments of these orders.
    pub(crate) fn payments(&self, orders: &[Order<'_>]) -> HttpRequest {
        let ids: Vec<i64> = orders.iter().map(|order| order.id).collect();
        let fields = ["pos_order_id", "payment_method_id", "amount"];
        let domain = json!([["pos_order_id", "in", ids]]);
        self.search("pos.payment", &domain, &fields, PAYMENTS_MAX)
    }

    fn search(&self, model: &str, domain: &Value, fields: &[&str], limit: usize) -> HttpRequest {
        let method = "search_read";
        let words = json!({"domain": domain, "fields": fields, "order": "id", "limit": limit});
        match self.api {
            Api::CallKw => rpc(&json!({"model": model, "method": method, "args": [], "kwargs": words})),
            Api::Jsonrpc => {
                let words = json!([self.database, self.user, null, model, method, [], words]);
                rpc(&json!({"service": "object", "method": "execute_kw", "args": words}))
            }
            Api::Json2 => post(&words).path(&format!("/json/2/{model}/{method}")),
        }
    }
}

fn rpc(params: &Value) -> HttpRequest {
    post(&json!({"jsonrpc": "2.0", "method": "call", "id": 1, "params": params}))
}

fn post(body: &Value) -> HttpRequest {
    HttpRequest::post(body.to_string().as_bytes()).header("content-type", "application/json")
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
            let known = ERRORS.into_iter().find(|known| *known == name);
            Err(format!(
                "odoo answers with an error: {}",
                known.unwrap_or("another one")
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

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test that panics fails")]
mod tests {
    use super::*;

    fn answer(body: &str) -> HttpResponse {
        HttpResponse {
            status: 200,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
            elapsed_us: 0,
        }
    }

    fn at(value: &Value, path: &str) -> Value {
        value.pointer(path).cloned().unwrap_or_default()
    }

    fn asked(request: &HttpRequest) -> Value {
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn every_question_by_a_key_leaves_room_for_it_at_one_place() {
        let mut account = Account::new(Api::Jsonrpc, "shop", "till").unwrap();
        let first = account.authenticate().unwrap();
        assert_eq!(at(&asked(&first), "/params/args"), json!(["shop", "till", null, {}]));
        account
            .authenticated(&answer(r#"{"jsonrpc":"2.0","id":1,"result":7}"#))
            .unwrap();
        assert!(account.authenticate().is_none());
        let orders = asked(&account.orders(259));
        assert_eq!(at(&orders, "/params/method"), "execute_kw");
        let args = at(&orders, "/params/args");
        assert_eq!(
            (at(&args, "/1"), at(&args, "/2"), at(&args, "/4")),
            (json!(7), Value::Null, json!("search_read"))
        );
        assert_eq!(at(&args, "/6/domain/0"), json!(["id", ">", 259]));
        for refused in [
            r#"{"result":false}"#,
            r#"{"error":{"data":{"name":"odoo.exceptions.AccessDenied"}}}"#,
        ] {
            assert!(account.authenticated(&answer(refused)).is_err(), "{refused}");
            account.forget();
            assert!(account.authenticate().is_some());
        }
        assert!(Account::new(Api::Jsonrpc, "shop", "").is_err());
    }

    #[test]
    fn a_session_asks_at_once_and_by_the_same_words() {
        let account = Account::new(Api::CallKw, "", "").unwrap();
        assert!(account.authenticate().is_none());
        let orders = asked(&account.orders(0));
        assert_eq!(at(&orders, "/params/kwargs/limit"), 200);
        assert_eq!(at(&orders, "/params/model"), "pos.order");
        let json2 = Account::new(Api::Json2, "", "").unwrap().orders(0);
        assert_eq!(asked(&json2), at(&orders, "/params/kwargs"));
    }
}
