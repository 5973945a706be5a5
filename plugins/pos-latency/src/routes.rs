//! From a requested URL to a name that the operator gave: bounded, and without anything from the URL itself.

use memchr::{memchr, memchr2, memmem};
use serde::Deserialize;

/// Routes that an operator may tell apart.
const ROUTES_MAX: usize = 40;
const ROUTE_BYTES_MAX: usize = 48;

/// One entry of the setting `routes`: one of `prefix`, `exact` and `pattern`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    prefix: Option<String>,
    exact: Option<String>,
    pattern: Option<String>,
    route: String,
}

/// The routes of a log.
#[derive(Debug)]
pub(crate) struct Routes {
    /// What matches, and the place of its name.
    rules: Vec<(Match, usize)>,
    /// Each name once; the first is that of all other requests.
    names: Vec<String>,
}

#[derive(Debug)]
enum Match {
    Prefix(Vec<u8>),
    Exact(Vec<u8>),
    Pattern(Pattern),
}

/// A text in which `*` stands for anything.
#[derive(Debug)]
struct Pattern {
    /// What stands before, between and behind each `*`.
    first: Vec<u8>,
    between: Vec<memmem::Finder<'static>>,
    last: Vec<u8>,
}

impl Routes {
    /// Checks the rules; the error says what to change.
    pub(crate) fn new(rules: Vec<Rule>, other: String) -> Result<Self, String> {
        if rules.len() > ROUTES_MAX {
            return Err(format!("routes: {} entries, at most {ROUTES_MAX}", rules.len()));
        }
        check_name("other_route", &other)?;
        let mut names = vec![other];
        let rules = rules
            .into_iter()
            .map(|rule| checked(rule, &mut names))
            .collect::<Result<_, _>>()?;
        Ok(Self { rules, names })
    }

    /// The place of the name of a requested path or URL: of the first rule that matches.
    pub(crate) fn of(&self, target: &[u8]) -> usize {
        let path = path(target);
        let found = self.rules.iter().find(|(rule, _)| match rule {
            Match::Prefix(prefix) => path.starts_with(prefix),
            Match::Exact(exact) => path == exact,
            Match::Pattern(pattern) => pattern.matches(path),
        });
        found.map_or(0, |(_, place)| *place)
    }

    /// Each once, that of all other requests first.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

fn checked(rule: Rule, names: &mut Vec<String>) -> Result<(Match, usize), String> {
    check_name("route", &rule.route)?;
    let matched = match (rule.prefix, rule.exact, rule.pattern) {
        (Some(prefix), None, None) => Match::Prefix(prefix.into_bytes()),
        (None, Some(exact), None) => Match::Exact(exact.into_bytes()),
        (None, None, Some(pattern)) => Pattern::parse(&pattern)
            .map(Match::Pattern)
            .ok_or_else(|| format!("routes: the pattern of {} has no *", rule.route))?,
        _ => return Err(format!("routes: {} needs one of prefix, exact and pattern", rule.route)),
    };
    let place = names.iter().position(|name| *name == rule.route).unwrap_or_else(|| {
        names.push(rule.route);
        names.len().saturating_sub(1)
    });
    Ok((matched, place))
}

impl Pattern {
    /// None without a `*`.
    fn parse(pattern: &str) -> Option<Self> {
        let (first, rest) = pattern.split_once('*')?;
        let mut parts: Vec<&str> = rest.split('*').collect();
        let last = parts.pop()?;
        Some(Self {
            first: first.into(),
            between: parts
                .iter()
                .map(|part| memmem::Finder::new(part).into_owned())
                .collect(),
            last: last.into(),
        })
    }

    fn matches(&self, path: &[u8]) -> bool {
        let Some(mut rest) = path.strip_prefix(self.first.as_slice()) else {
            return false;
        };
        for part in &self.between {
            let after = part
                .find(rest)
                .and_then(|at| rest.get(at.checked_add(part.needle().len())?..));
            let Some(after) = after else { return false };
            rest = after;
        }
        rest.ends_with(&self.last)
    }
}

/// As `plugin.toml` declares the label.
fn check_name(setting: &str, name: &str) -> Result<(), String> {
    let fits = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'/' | b':' | b'-');
    if (1..=ROUTE_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!(
        "{setting}: {name:?} is not of [a-z0-9_./:-]{{1,{ROUTE_BYTES_MAX}}}"
    ))
}

/// The path without scheme, host, query and fragment.
fn path(target: &[u8]) -> &[u8] {
    let end = memchr2(b'?', b'#', target).unwrap_or(target.len());
    let target = target.get(..end).unwrap_or_default();
    if target.first() == Some(&b'/') {
        return target;
    }
    match memmem::find(target, b"://") {
        Some(scheme) => {
            let rest = target.get(scheme.saturating_add(3)..).unwrap_or_default();
            memchr(b'/', rest).and_then(|slash| rest.get(slash..)).unwrap_or(b"/")
        }
        None => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: Option<&str>, exact: Option<&str>, route: &str) -> Rule {
        Rule {
            prefix: prefix.map(str::to_owned),
            exact: exact.map(str::to_owned),
            pattern: None,
            route: route.to_owned(),
        }
    }

    fn pattern(pattern: &str, route: &str) -> Rule {
        Rule {
            pattern: Some(pattern.to_owned()),
            ..rule(None, None, route)
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        let rules = vec![
            pattern("/stores/*/tills/*/pay", "/pay"),
            pattern("/a*a", "/aa"),
            pattern("*.php", "/php"),
        ];
        let routes = Routes::new(rules, "_other".to_owned()).unwrap();
        for (target, route) in [
            ("/stores/0412/tills/7/pay?x=1", "/pay"),
            ("/stores/0412/tills/7/loyalty", "_other"),
            ("/stores/0412/tills/pay", "_other"),
            ("/stores//tills//pay", "/pay"),
            ("/a", "_other"),
            ("/aa", "/aa"),
            ("/index.php", "/php"),
        ] {
            let found = routes.names().get(routes.of(target.as_bytes())).map(String::as_str);
            assert_eq!(found, Some(route), "{target}");
        }
    }

    fn routes() -> Routes {
        let rules = vec![
            rule(None, Some("/api/loyalty/ping"), "/ping"),
            rule(Some("/api/loyalty/"), None, "/loyalty"),
            rule(Some("/pay"), None, "/pay"),
        ];
        Routes::new(rules, "_other".to_owned()).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_names_the_route() {
        for (target, route) in [
            ("/api/loyalty/ping", "/ping"),
            ("/api/loyalty/ping?card=1", "/ping"),
            ("/api/loyalty/points/4711", "/loyalty"),
            ("/pay#top", "/pay"),
            ("/payment", "/pay"),
            ("https://till.local:8443/pay/1?x=://", "/pay"),
            ("http://till.local", "_other"),
            ("/customers/john.smith", "_other"),
            ("", "_other"),
            ("*", "_other"),
        ] {
            let routes = routes();
            let found = routes.names().get(routes.of(target.as_bytes())).map(String::as_str);
            assert_eq!(found, Some(route), "{target}");
        }
    }

    #[test]
    fn rules_may_share_a_name_also_that_of_all_other_requests() {
        let rules = vec![
            rule(Some("/a"), None, "/x"),
            rule(Some("/b"), None, "_other"),
            rule(Some("/c"), None, "/x"),
        ];
        let routes = Routes::new(rules, "_other".to_owned()).unwrap();
        assert_eq!(routes.names(), ["_other", "/x"]);
        assert_eq!([b"/a", b"/b", b"/c"].map(|target| routes.of(target)), [1, 0, 1]);
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let one = |rule| Routes::new(vec![rule], "_other".to_owned()).err().unwrap_or_default();
        assert_eq!(
            one(rule(None, None, "/a")),
            "routes: /a needs one of prefix, exact and pattern"
        );
        assert_eq!(
            one(rule(Some("/a"), Some("/a"), "/a")),
            "routes: /a needs one of prefix, exact and pattern"
        );
        assert!(one(rule(Some("/a"), None, "/A b")).starts_with("route: \"/A b\" is not of"));
        assert_eq!(one(pattern("/a", "/a")), "routes: the pattern of /a has no *");
        let many = vec![rule(Some("/a"), None, "/a"); 41];
        assert!(Routes::new(many, "_other".to_owned()).is_err_and(|error| error.contains("at most 40")));
    }
}
