//! The certificates in use: read again when their files change, and told of before they end.
//!
//! In: the time. Out: whether there are others now. What cannot be used changes nothing and is said.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tillwatch_feed::topic::SiteId;
use tracing::{info, warn};

use crate::tls::{DAYS_LEFT_MIN, Tls};

/// The files are looked at again so often while a connection stands.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// A certificate that ends soon is told so often.
const TELL_EVERY_MS: u64 = 86_400_000;

pub(super) struct Certificates {
    site: SiteId,
    tls: Option<Tls>,
    tell_ms: u64,
}

impl Certificates {
    pub(super) fn new(site: &SiteId, tls: Option<Tls>) -> Self {
        Self {
            site: site.clone(),
            tls,
            tell_ms: 0,
        }
    }

    pub(super) fn config(&self) -> Option<Arc<ClientConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(tls.config()))
    }

    /// True when there are others from now on.
    pub(super) fn look(&mut self, now_ms: u64) -> bool {
        let (site, Some(tls)) = (self.site.clone(), &mut self.tls) else {
            return false;
        };
        let is_new = tls.renew().unwrap_or_else(|error| {
            let error = one_line(&error);
            warn!(%site, error, "the new certificate files cannot be used, the old ones stay in use");
            false
        });
        let days_left = tls.days_left(now_ms);
        if is_new {
            info!(%site, days_left, "new certificate files are used");
            self.tell_ms = 0;
        }
        if let Some(days_left) = days_left.filter(|days| self.is_due(now_ms, *days)) {
            warn!(%site, days_left, "this site's certificate has ended or ends soon");
        }
        is_new
    }

    /// Whether so many days are to be told; once a day.
    fn is_due(&mut self, now_ms: u64, days_left: i64) -> bool {
        let is_due = days_left < DAYS_LEFT_MIN && now_ms >= self.tell_ms;
        if is_due {
            self.tell_ms = now_ms.saturating_add(TELL_EVERY_MS);
        }
        is_due
    }
}

/// The error with its cause; the hint stands in its own line.
fn one_line(error: &dyn std::error::Error) -> String {
    let text = error.to_string().replace('\n', "; ");
    match error.source() {
        Some(source) => format!("{text}: {source}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_once_a_day_from_a_month_before_its_end() {
        const HOUR_MS: u64 = 3_600_000;
        let mut certificates = Certificates::new(&"store-1".parse().unwrap(), None);
        assert!(!certificates.is_due(0, 30));
        let told = (0..72).filter(|hour| certificates.is_due(hour * HOUR_MS, 29)).count();
        assert_eq!(told, 3);
        assert!(certificates.is_due(100 * HOUR_MS, -1), "one that has ended, too");
    }
}
