//! Redis' replies: RESP2 and RESP3, one reply after the other, borrowed from the bytes.
//!
//! A length that a reply names is never allocated before its bytes are there. Source: redis.io "Redis serialization
//! protocol specification".

use tillwatch_sdk::parse::Wrong;

/// Replies within replies.
const DEPTH_MAX: usize = 8;

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply<'a> {
    /// No such key, no such value.
    Nil,
    Integer(i64),
    Text(&'a [u8]),
    /// Its first word, such as `NOPERM`, and the rest.
    Error(&'a [u8]),
    /// Of a map, keys and values in turn.
    List(Vec<Reply<'a>>),
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// More bytes may make one.
    Short,
    /// They never will.
    Wrong(Wrong),
}

const SYNTAX: Unread = Unread::Wrong(Wrong::Syntax);

/// Reads the first reply, and gives what follows it.
pub(crate) fn read(bytes: &[u8]) -> Result<(Reply<'_>, &[u8]), Unread> {
    read_within(bytes, DEPTH_MAX)
}

fn read_within(bytes: &[u8], depth: usize) -> Result<(Reply<'_>, &[u8]), Unread> {
    let depth = depth.checked_sub(1).ok_or(Unread::Wrong(Wrong::Limit))?;
    let (line, rest) = line(bytes)?;
    let (kind, text) = line.split_first().ok_or(SYNTAX)?;
    let reply = match kind {
        b'+' | b',' | b'(' | b'#' => Reply::Text(text),
        b'-' => Reply::Error(text),
        b':' => Reply::Integer(integer(text)?),
        b'_' => Reply::Nil,
        b'$' | b'!' | b'=' => return bulk(*kind, text, rest),
        b'*' | b'~' | b'>' => return list(text, 1, rest, depth),
        b'%' => return list(text, 2, rest, depth),
        b'|' => {
            // What is said about the reply that follows.
            let (_attributes, rest) = list(text, 2, rest, depth)?;
            return read_within(rest, depth);
        }
        _ => return Err(SYNTAX),
    };
    Ok((reply, rest))
}

/// To the next CR LF.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Unread> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n").ok_or(Unread::Short)?;
    let (line, rest) = bytes.split_at_checked(end).ok_or(Unread::Short)?;
    Ok((line, rest.get(2..).unwrap_or_default()))
}

fn integer(text: &[u8]) -> Result<i64, Unread> {
    let text = std::str::from_utf8(text).or(Err(SYNTAX))?;
    text.parse().or(Err(Unread::Wrong(Wrong::Number)))
}

/// None when the length is -1.
fn length(text: &[u8]) -> Result<Option<usize>, Unread> {
    match integer(text)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).or(Err(SYNTAX)),
    }
}

fn bulk<'a>(kind: u8, text: &[u8], rest: &'a [u8]) -> Result<(Reply<'a>, &'a [u8]), Unread> {
    let Some(length) = length(text)? else {
        return Ok((Reply::Nil, rest));
    };
    let (content, rest) = rest.split_at_checked(length).ok_or(Unread::Short)?;
    let (end, rest) = rest.split_at_checked(2).ok_or(Unread::Short)?;
    if end != b"\r\n" {
        return Err(SYNTAX);
    }
    let reply = match kind {
        b'!' => Reply::Error(content),
        // Three letters and a colon say what kind of text it is.
        b'=' => Reply::Text(content.get(4..).ok_or(SYNTAX)?),
        _ => Reply::Text(content),
    };
    Ok((reply, rest))
}

fn list<'a>(text: &[u8], each: usize, mut rest: &'a [u8], depth: usize) -> Result<(Reply<'a>, &'a [u8]), Unread> {
    let Some(length) = length(text)? else {
        return Ok((Reply::Nil, rest));
    };
    let length = length.checked_mul(each).ok_or(SYNTAX)?;
    let mut replies = Vec::new();
    for _ in 0..length {
        let (reply, after) = read_within(rest, depth)?;
        replies.push(reply);
        rest = after;
    }
    Ok((Reply::List(replies), rest))
}

/// A command as servers take it from any client.
pub(crate) fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> Reply<'_> {
        let (reply, rest) = read(bytes).unwrap();
        assert_eq!(rest, b"");
        reply
    }

    #[test]
    fn replies_of_both_protocols_are_read() {
        let text = |text: &'static str| Reply::Text(text.as_bytes());
        for (bytes, expected) in [
            (&b"+OK\r\n"[..], text("OK")),
            (b":-30\r\n", Reply::Integer(-30)),
            (b"$5\r\na\r\nbc\r\n", text("a\r\nbc")),
            (b"$0\r\n\r\n", text("")),
            (b"$-1\r\n", Reply::Nil),
            (b"*-1\r\n", Reply::Nil),
            (b"_\r\n", Reply::Nil),
            (
                b"*2\r\n:1\r\n*0\r\n",
                Reply::List(vec![Reply::Integer(1), Reply::List(vec![])]),
            ),
            (
                b"%1\r\n+lag\r\n:7\r\n",
                Reply::List(vec![text("lag"), Reply::Integer(7)]),
            ),
            (b"~1\r\n#t\r\n", Reply::List(vec![text("t")])),
            (b"=7\r\ntxt:abc\r\n", text("abc")),
            (b"!3\r\nERR\r\n", Reply::Error(b"ERR")),
            (b"|1\r\n+ttl\r\n:9\r\n:4\r\n", Reply::Integer(4)),
            (b",1.5\r\n", text("1.5")),
        ] {
            assert_eq!(whole(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(whole(b"-NOPERM this user\r\n"), Reply::Error(b"NOPERM this user"));
    }

    #[test]
    fn what_no_bytes_can_mend_is_wrong_and_not_short() {
        for bytes in [
            &b"?1\r\n"[..],
            b":x\r\n",
            b"$-2\r\n",
            b"$1\r\nabc\r\n",
            b"\r\n",
            b"=1\r\na\r\n",
        ] {
            assert!(
                matches!(read(bytes), Err(Unread::Wrong(_))),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        assert_eq!(read(&b"*1\r\n".repeat(9)), Err(Unread::Wrong(Wrong::Limit)));
        // Nothing is set aside for what is only announced.
        assert_eq!(read(b"*9223372036854775807\r\n:1\r\n"), Err(Unread::Short));
        assert_eq!(read(b"$9223372036854775807\r\nabc"), Err(Unread::Short));
    }

    #[test]
    fn a_reply_that_is_cut_anywhere_is_short() {
        let groups = b"*1\r\n*6\r\n$4\r\nname\r\n$8\r\nuploader\r\n$7\r\npending\r\n:5\r\n$3\r\nlag\r\n$-1\r\n";
        for end in 0..groups.len() {
            assert_eq!(read(&groups[..end]), Err(Unread::Short), "{end}");
        }
        assert!(matches!(whole(groups), Reply::List(_)));
    }

    #[test]
    fn commands_are_read_back_as_lists() {
        let bytes = command(&["LLEN", "spool:a b"]);
        assert_eq!(bytes, b"*2\r\n$4\r\nLLEN\r\n$9\r\nspool:a b\r\n");
        assert_eq!(
            whole(&bytes),
            Reply::List(vec![Reply::Text(b"LLEN"), Reply::Text(b"spool:a b")])
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'-'), Just(b'%'), any::<u8>()], 0..64)) {
            if let Ok((_reply, rest)) = read(&bytes) {
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
