//! Redis: the length of lists, and how far the groups of a stream are behind.
//!
//! No content of a list or stream is asked for. One exchange asks about several keys and ends with `QUIT`, so that it
//! ends whatever the account may do. Source: redis.io commands `TYPE`, `LLEN`, `XLEN`, `XINFO GROUPS`, `XPENDING`.

use tillwatch_sdk::parse::{Problems, Wrong};
use tillwatch_sdk::{Host, TcpRequest};

use crate::Settings;
use crate::broker::Trouble;
use crate::queues::{Queues, key};
use crate::resp::{Reply, Unread, command, read as read_reply};
use crate::sheet::{Reading, Sheet, age_ms};

/// The source of kind `tcp`.
pub(crate) const REDIS: &str = "redis";
/// Below what an operator grants by default.
const SEND_BYTES_MAX: usize = 3_500;
const ANSWER_BYTES_MAX: u32 = 64 << 10;
/// Groups of all streams whose oldest message is asked for.
const GROUPS_MAX: usize = 100;
const REFUSED: &str = "redis wants a login, or the account may not ask: see redis_user in the plugin's README";
const NO_QUEUES: &str = "none of the keys that the settings name is a list or a stream";
const UNABLE: &str =
    "redis cannot answer: it still loads, is busy or without its master, or the queue is on another node";

pub(crate) fn read(
    settings: &Settings,
    queues: &Queues,
    host: &mut dyn Host,
    sheet: &mut Sheet<'_>,
    problems: &mut Problems,
) -> Result<(), Trouble> {
    let names: Vec<&str> = queues.exact().map(|(name, _shown)| name).collect();
    let questions = names.iter().flat_map(|name| {
        [
            command(&["TYPE", name]),
            command(&["LLEN", name]),
            command(&["XLEN", name]),
            command(&["XINFO", "GROUPS", name]),
        ]
    });
    let mut found = Vec::new();
    exchange(settings, host, &questions.collect::<Vec<_>>(), |place, reply| {
        let name = names.get(place.div_euclid(4)).copied().unwrap_or_default();
        match place.rem_euclid(4) {
            0 => found.push(Found::new(name, reply)),
            part => found
                .last_mut()
                .map_or(Ok(()), |found| found.take(part, reply))
                .unwrap_or_else(|wrong| problems.count(wrong)),
        }
    })?;
    if found.iter().all(|found| found.kind == Kind::Other) {
        return Err(Trouble::Blind(NO_QUEUES));
    }
    ask_ages(settings, host, &mut found, problems)?;
    for found in found {
        found.add(sheet);
    }
    Ok(())
}

/// Sends the commands, as many at once as may be, and gives each its reply.
fn exchange(
    settings: &Settings,
    host: &mut dyn Host,
    commands: &[Vec<u8>],
    mut give: impl FnMut(usize, &Reply<'_>),
) -> Result<(), Trouble> {
    let mut next = 0_usize;
    while next < commands.len() {
        let mut bytes = login(settings);
        let is_login = !bytes.is_empty();
        let begun = next;
        while let Some(command) = commands.get(next) {
            if next > begun && bytes.len().saturating_add(command.len()) > SEND_BYTES_MAX {
                break;
            }
            bytes.extend(command);
            next = next.saturating_add(1);
        }
        bytes.extend(command(&["QUIT"]));
        let request = TcpRequest {
            bytes,
            until: None,
            bytes_max: ANSWER_BYTES_MAX,
        };
        let answer = host.tcp(REDIS, request)?.bytes;
        let mut rest = answer.as_slice();
        if is_login {
            rest = reply(rest)?.1;
        }
        for place in begun..next {
            let (reply, after) = reply(rest)?;
            rest = after;
            give(place, &reply);
        }
    }
    Ok(())
}

/// Of an account without a password: the plugin knows no secret.
fn login(settings: &Settings) -> Vec<u8> {
    if settings.redis_user.is_empty() {
        return Vec::new();
    }
    command(&["AUTH", &settings.redis_user, "none"])
}

fn reply(bytes: &[u8]) -> Result<(Reply<'_>, &[u8]), Trouble> {
    let (reply, rest) = read_reply(bytes).map_err(|unread| match unread {
        Unread::Short => Trouble::Wrong(Wrong::Limit),
        Unread::Wrong(wrong) => Trouble::Wrong(wrong),
    })?;
    let Reply::Error(error) = &reply else {
        return Ok((reply, rest));
    };
    let is_one_of = |kinds: &[&[u8]]| kinds.iter().any(|kind| error.starts_with(kind));
    if is_one_of(&[b"NOAUTH", b"NOPERM", b"WRONGPASS", b"DENIED"]) {
        Err(Trouble::Blind(REFUSED))
    } else if is_one_of(&[b"WRONGTYPE", b"NOGROUP", b"ERR"]) {
        // Of a question that does not fit this key.
        Ok((reply, rest))
    } else {
        Err(Trouble::Blind(UNABLE))
    }
}

/// What is known of one key.
struct Found<'n> {
    name: &'n str,
    kind: Kind,
    length: Option<i64>,
    groups: Vec<Group>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Redis has no empty lists: what is not there is one.
    List,
    Stream,
    Other,
}

struct Group {
    name: String,
    consumers: Option<i64>,
    pending: Option<i64>,
    /// Unknown in some states, and before Redis 7.
    lag: Option<i64>,
    read: Option<i64>,
    oldest_age_ms: Option<i64>,
}

impl<'n> Found<'n> {
    fn new(name: &'n str, kind: &Reply<'_>) -> Self {
        let kind = match kind {
            Reply::Text(b"list" | b"none") => Kind::List,
            Reply::Text(b"stream") => Kind::Stream,
            _ => Kind::Other,
        };
        Self {
            name,
            kind,
            length: None,
            groups: Vec::new(),
        }
    }

    /// The replies of `LLEN`, `XLEN` and `XINFO GROUPS`, of which only some fit the kind.
    fn take(&mut self, part: usize, reply: &Reply<'_>) -> Result<(), Wrong> {
        match (self.kind, part, reply) {
            (Kind::List, 1, Reply::Integer(length)) | (Kind::Stream, 2, Reply::Integer(length)) => {
                self.length = Some(*length);
            }
            (Kind::Stream, 3, Reply::List(groups)) => self.groups = groups.iter().map(Group::new).collect(),
            (Kind::Other, 1, _) | (Kind::List, 1, _) | (Kind::Stream, 2 | 3, _) => return Err(Wrong::Syntax),
            _ => {}
        }
        Ok(())
    }

    /// What is neither a list nor a stream is no queue: it stays missing.
    fn add(self, sheet: &mut Sheet<'_>) {
        if self.kind == Kind::Other {
            return;
        }
        let reading = if self.groups.is_empty() {
            Reading {
                depth: self.length,
                ..Reading::default()
            }
        } else {
            self.of_groups()
        };
        sheet.add(Some(self.name), key(&[self.name]), &reading);
    }

    fn of_groups(&self) -> Reading {
        let all = |value: fn(&Group) -> Option<i64>| self.groups.iter().map(value).collect::<Option<Vec<i64>>>();
        let sum = |values: Vec<i64>| values.into_iter().fold(0, i64::saturating_add);
        let behind = |group: &Group| Some(group.lag?.saturating_add(group.pending?));
        Reading {
            depth: all(behind).and_then(|behind| behind.into_iter().max()),
            unacked: all(|group| group.pending).map(sum),
            consumers: all(|group| group.consumers).map(sum),
            oldest_age_ms: all(|group| group.oldest_age_ms).and_then(|ages| ages.into_iter().max()),
            moved: [None, all(|group| group.read).and_then(|read| read.into_iter().min())],
        }
    }
}

impl Group {
    fn new(reply: &Reply<'_>) -> Self {
        let value = |wanted: &str| field(reply, wanted);
        let integer = |wanted: &str| match value(wanted) {
            Some(Reply::Integer(value)) => Some(*value),
            _ => None,
        };
        let (pending, lag) = (integer("pending"), integer("lag"));
        Self {
            name: match value("name") {
                Some(Reply::Text(name)) => String::from_utf8(name.to_vec()).unwrap_or_default(),
                _ => String::new(),
            },
            consumers: integer("consumers"),
            pending,
            lag,
            read: integer("entries-read"),
            oldest_age_ms: (pending == Some(0) && lag == Some(0)).then_some(0),
        }
    }
}

/// The value of a key in a map.
fn field<'r, 'a>(reply: &'r Reply<'a>, wanted: &str) -> Option<&'r Reply<'a>> {
    let Reply::List(pairs) = reply else { return None };
    pairs.chunks_exact(2).find_map(|pair| match pair {
        [Reply::Text(name), value] if *name == wanted.as_bytes() => Some(value),
        _ => None,
    })
}

/// How old the oldest message is that a group has delivered and not seen acknowledged: none of those that it has not
/// delivered is older.
fn ask_ages(
    settings: &Settings,
    host: &mut dyn Host,
    found: &mut [Found<'_>],
    problems: &mut Problems,
) -> Result<(), Trouble> {
    let now_ms = i64::try_from(host.now_ms()).unwrap_or(i64::MAX);
    let mut waiting: Vec<(&str, &mut Group)> = Vec::new();
    for found in found.iter_mut() {
        let name = found.name;
        let groups = found
            .groups
            .iter_mut()
            .filter(|group| group.pending > Some(0) && !group.name.is_empty());
        waiting.extend(groups.map(|group| (name, group)));
    }
    waiting.truncate(GROUPS_MAX);
    let commands: Vec<Vec<u8>> = waiting
        .iter()
        .map(|(name, group)| command(&["XPENDING", name, &group.name]))
        .collect();
    exchange(settings, host, &commands, |place, reply| {
        let Some((_name, group)) = waiting.get_mut(place) else {
            return;
        };
        match oldest_ms(reply) {
            Ok(oldest_ms) => {
                group.oldest_age_ms = oldest_ms.and_then(|oldest_ms| age_ms(now_ms, oldest_ms));
            }
            Err(wrong) => problems.count(wrong),
        }
    })
}

/// An identifier begins with the time at which the entry was added; all may have been acknowledged meanwhile.
fn oldest_ms(reply: &Reply<'_>) -> Result<Option<i64>, Wrong> {
    let Reply::List(parts) = reply else {
        return Err(Wrong::Syntax);
    };
    match parts.as_slice() {
        [Reply::Integer(_), Reply::Text(first), ..] => {
            let text = std::str::from_utf8(first).or(Err(Wrong::Encoding))?;
            let (ms, _number) = text.split_once('-').ok_or(Wrong::Syntax)?;
            ms.parse().map(Some).or(Err(Wrong::Number))
        }
        [Reply::Integer(_), Reply::Nil, ..] => Ok(None),
        _ => Err(Wrong::Syntax),
    }
}
