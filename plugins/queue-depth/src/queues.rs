//! From a queue's name in a line to a name that the operator gave: bounded, and nothing else leaves the store.

/// All queues that the operator did not name.
pub(crate) const OTHER: &str = "_other";
/// Queues that an operator may tell apart.
const QUEUES_MAX: usize = 40;
const NAME_BYTES_MAX: usize = 40;

/// The queue names of one instance.
pub(crate) struct Queues {
    default_name: String,
    known: Vec<String>,
}

impl Queues {
    /// Checks the names; the error says what to change.
    pub(crate) fn new(default_name: String, known: Vec<String>) -> Result<Self, String> {
        if known.len() > QUEUES_MAX {
            return Err(format!("queues: {} names, at most {QUEUES_MAX}", known.len()));
        }
        check_name("queue", &default_name)?;
        known.iter().try_for_each(|name| check_name("queues", name))?;
        Ok(Self { default_name, known })
    }

    /// The name of the drop folder and of lines without one.
    pub(crate) fn default_name(&self) -> &str {
        &self.default_name
    }

    /// The name to report for what a line has.
    pub(crate) fn name_of(&self, queue: Option<&str>) -> &str {
        let Some(queue) = queue else { return &self.default_name };
        self.known
            .iter()
            .find(|known| *known == queue)
            .map_or(OTHER, String::as_str)
    }
}

/// As `plugin.toml` declares the label.
fn check_name(setting: &str, name: &str) -> Result<(), String> {
    let fits = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!(
        "{setting}: {name:?} is not of [a-z0-9._-]{{1,{NAME_BYTES_MAX}}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_queues_are_told_apart() {
        let queues = Queues::new("labels".to_owned(), vec!["mainframe".to_owned()]).unwrap();
        assert_eq!(queues.name_of(Some("mainframe")), "mainframe");
        assert_eq!(queues.name_of(Some("john.smith")), OTHER);
        assert_eq!(queues.name_of(None), "labels");
    }

    #[test]
    fn names_that_make_no_sense_are_refused() {
        let error = |name: &str, known: Vec<String>| Queues::new(name.to_owned(), known).err();
        assert_eq!(
            error("Main Frame", vec![]).unwrap(),
            "queue: \"Main Frame\" is not of [a-z0-9._-]{1,40}"
        );
        assert!(error("a", vec![String::new()]).unwrap().starts_with("queues: \"\""));
        assert_eq!(
            error("a", vec!["b".to_owned(); 41]).unwrap(),
            "queues: 41 names, at most 40"
        );
    }
}
