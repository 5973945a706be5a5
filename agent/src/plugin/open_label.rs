//! Label patterns that would let people through: told to authors, and packed by nobody.
//!
//! In: a manifest. Out: which labels are too open, and by what. An agent runs a released plugin all the same: its guard
//! stands behind the pattern.

use super::manifest::Manifest;

/// What no label of a store's machines looks like. Long numbers are not tried: the guard refuses them in any label.
const PROBES: [(&str, &str); 4] = [
    ("a person's name", "John.Smith"),
    ("a person's name", "John Smith"),
    ("an e-mail address", "John.Smith@example.com"),
    ("a magnetic stripe", "%B4111111111111111^SMITH/JOHN^2512101?"),
];

/// Numbers that name a transaction, an account or a person.
const NUMBERS: [&str; 4] = ["100001", "10000001", "1000000001", "100000000001"];
/// What labels are that name a till, a lane or a status.
const SHORT: [&str; 5] = ["1", "12", "1234", "a", "till-1"];

/// What to do.
pub(crate) const REMEDY: &str =
    "name the values, or what they are made of, such as [a-z0-9-]{1,20}: lower-case letters, digits and few signs";

/// One line for each label that is too open.
pub(crate) fn faults(manifest: &Manifest) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, policy) in &manifest.labels {
        let Some(pattern) = &policy.pattern else { continue };
        // What is no pattern at all is told by whoever declares it.
        let is_open = |(_what, probe): &&(&str, &str)| policy.allows(probe).unwrap_or(false);
        if let Some((what, probe)) = PROBES.iter().find(is_open) {
            faults.push(format!(
                "label `{name}`: pattern {pattern:?} lets {what} through, such as {probe:?}"
            ));
        }
    }
    faults
}

/// One line for each label that takes nothing but long numbers: it is packed all the same, as a scale may have such a name.
pub(crate) fn cautions(manifest: &Manifest) -> Vec<String> {
    let is_long = |name: &&String| {
        let policy = &manifest.labels[*name];
        let allows = |text: &&str| policy.pattern.is_some() && policy.allows(text).unwrap_or(false);
        NUMBERS.iter().any(&allows) && !SHORT.iter().any(allows)
    };
    let caution = |name: &String| {
        format!(
            "label `{name}` takes only numbers of six digits and more, which name a transaction or a person: put them into no label"
        )
    };
    manifest.labels.keys().filter(is_long).map(caution).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::manifest::tests::GOOD;
    use std::path::Path;

    fn faults_of(pattern: &str) -> Vec<String> {
        let text = GOOD.replace("[a-z]+", pattern);
        faults(&Manifest::parse(Path::new("plugin.toml"), &text).unwrap())
    }

    #[test]
    fn a_pattern_that_lets_people_through_is_named_with_whom() {
        for (pattern, what) in [
            (".*", "a person's name"),
            ("[A-Za-z.]{1,20}", "John.Smith"),
            ("[A-Za-z ]+", "John Smith"),
            ("[^ ]+@[^ ]+", "an e-mail address"),
            ("%B.*", "a magnetic stripe"),
        ] {
            let told = faults_of(pattern).join("\n");
            assert!(told.contains(what), "{pattern}: {told}");
        }
        for pattern in [
            "[a-z0-9._-]{1,40}",
            "[a-z0-9_./:-]{1,48}",
            "[A-Z0-9.]{1,48}",
            "till-[0-9]{1,3}",
        ] {
            assert_eq!(faults_of(pattern), Vec::<String>::new(), "{pattern}");
        }
    }

    /// A plugin whose label was the number of each transaction passed every check without a word.
    #[test]
    fn a_label_that_takes_only_long_numbers_is_named() {
        for (pattern, is_told) in [
            ("[0-9]{12}", true),
            ("[0-9]{6,10}", true),
            ("[0-9]{1,12}", false),
            ("[a-z0-9._-]{1,40}", false),
            ("till-[0-9]{1,3}", false),
        ] {
            let text = GOOD.replace("[a-z]+", pattern);
            let told = cautions(&Manifest::parse(Path::new("plugin.toml"), &text).unwrap()).join("");
            assert_eq!(
                told.contains("label `queue` takes only numbers"),
                is_told,
                "{pattern}: {told}"
            );
        }
    }
}
