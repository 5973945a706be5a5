//! IBM MQ by its administrative REST API: v1 answers a GET, v2 and v3 a POST that runs `DISPLAY QSTATUS`.
//!
//! Written to the manual and recorded answers; no live queue manager has been asked.
//! Sources: IBM MQ 9.4 reference, "GET /admin/qmgr/{qmgrName}/queue" and "POST - JSON formatted command".

use tillwatch_sdk::parse::{Problems, Wrong};
use tillwatch_sdk::{Host, HttpRequest};

use crate::broker::{Trouble, ask};
use crate::json::{Pointer, each, find, pointers, text, whole};
use crate::queues::key;
use crate::sheet::{Reading, Sheet};

const QUESTION: &str = "{\"type\":\"runCommandJSON\",\"command\":\"display\",\"qualifier\":\"qstatus\",\"name\":\"*\",\
                        \"responseParameters\":[\"curdepth\",\"ipprocs\",\"msgage\"]}";
/// What `MSGAGE` says at most, which may be longer ago.
const AGE_S_MAX: i64 = 999_999_999;

/// v1: the operator's URL says which attributes it wants.
pub(crate) fn read_v1(host: &mut dyn Host, sheet: &mut Sheet<'_>, problems: &mut Problems) -> Result<(), Trouble> {
    let body = ask(host, HttpRequest::get())?;
    let [queues] = find(&body, &pointers(["/queue"]))?;
    let queue = pointers([
        "/name",
        "/status/currentDepth",
        "/status/openInputCount",
        "/status/oldestMessageAge",
    ]);
    each(queues.ok_or(Wrong::Missing)?, |_key, json| {
        if let Err(wrong) = add(json, &queue, sheet) {
            problems.count(wrong);
        }
    })?;
    Ok(())
}

/// v2 and v3.
pub(crate) fn read(host: &mut dyn Host, sheet: &mut Sheet<'_>, problems: &mut Problems) -> Result<(), Trouble> {
    let request = HttpRequest::post(QUESTION.as_bytes()).header("content-type", "application/json");
    let body = ask(host, request)?;
    let [queues, reason] = find(&body, &pointers(["/commandResponse", "/overallReasonCode"]))?;
    let queue = pointers([
        "/parameters/queue",
        "/parameters/curdepth",
        "/parameters/ipprocs",
        "/parameters/msgage",
    ]);
    let code = pointers(["/completionCode"]);
    each(queues.ok_or(Wrong::Missing)?, |_key, json| {
        let is_good = find(json, &code)
            .and_then(|[code]| whole(code))
            .map(|code| code == Some(0));
        let added = match is_good {
            Ok(true) => add(json, &queue, sheet),
            Ok(false) => Err(Wrong::Missing),
            Err(wrong) => Err(wrong),
        };
        if let Err(wrong) = added {
            problems.count(wrong);
        }
    })?;
    match whole(reason)? {
        Some(reason) if reason != 0 && sheet.told() == 0 => Err(Trouble::Status(reason)),
        _ => Ok(()),
    }
}

fn add(json: &str, queue: &[Pointer; 4], sheet: &mut Sheet<'_>) -> Result<(), Wrong> {
    let [name, depth, consumers, age] = find(json, queue)?;
    let name = text(name.ok_or(Wrong::Missing)?).ok_or(Wrong::Syntax)?;
    // A depth that is missing belongs to an alias or a remote queue, which holds nothing.
    let reading = Reading {
        depth: whole(depth)?,
        unacked: None,
        consumers: whole(consumers)?,
        oldest_age_ms: whole(age)?
            .filter(|seconds| *seconds < AGE_S_MAX)
            .map(|seconds| seconds.saturating_mul(1_000)),
        moved: [None; 2],
    };
    sheet.add(Some(name.trim_end()), key(&[&name]), &reading);
    Ok(())
}
