//! What survives a restart, as lines of text: the last `#Fields:`, the day that W3C lines are at, and each route's last request.

use crate::line::Reader;
use crate::routes::Routes;
use crate::silence::Silence;

const VERSION: &str = "pos-latency 1";

/// The state of a plugin.
pub(crate) fn encode(reader: &Reader, routes: &Routes, silence: &Silence) -> Vec<u8> {
    let mut text = format!("{VERSION}\n");
    if let Some(w3c) = reader.w3c() {
        text += &format!("fields {}\n", w3c.fields());
        text += &format!("day {}\n", w3c.day());
    }
    for (route, last_ms) in routes.names().iter().zip(silence.last_ms()) {
        if let Some(last_ms) = last_ms {
            text += &format!("last {last_ms} {route}\n");
        }
    }
    text.into_bytes()
}

/// Takes what is still of use; state that nobody can read is as none.
pub(crate) fn decode(state: &[u8], reader: &mut Reader, routes: &Routes, silence: &mut Silence) {
    let Ok(text) = std::str::from_utf8(state) else { return };
    let mut lines = text.lines();
    if lines.next() != Some(VERSION) {
        return;
    }
    for line in lines {
        match line.split_once(' ') {
            Some(("fields", fields)) if !fields.is_empty() => {
                if let Some(w3c) = reader.w3c_mut() {
                    w3c.set_fields(fields);
                }
            }
            Some(("day", day)) => {
                if let Some(w3c) = reader.w3c_mut() {
                    w3c.set_day(day);
                }
            }
            Some(("last", last)) => observe(last, routes, silence),
            _ => {}
        }
    }
}

fn observe(last: &str, routes: &Routes, silence: &mut Silence) {
    let Some((last_ms, name)) = last.split_once(' ') else {
        return;
    };
    let route = routes.names().iter().position(|route| route == name);
    if let (Some(route), Ok(last_ms)) = (route, last_ms.parse()) {
        silence.observe(route, last_ms, last_ms);
    }
}
