//! What a payload says to whoever reckons with it: when it came, when its birth came late, and again after a restart.
//!
//! In: payloads whose fresh records are known. Out: observations and findings, told in the order of arrival.
//! It never writes, and never tells what is not durable; the caller sees to that.

use crate::archive::{Archive, ArchiveError, IncidentChanges, IncidentRow, Payload};
use crate::decode::{self, Dictionaries, Dictionary, Observation, Unreadable};
use crate::rollup::Rollup;
use crate::watermark::Watermark;
use std::sync::Arc;
use tillwatch_feed::codec;
use tillwatch_feed::message::{Body, Finding, Message};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::topic::SiteId;

/// Whoever makes incidents of observations; what it is told is durable.
pub trait Reckoner: Send {
    /// One quarter-hour sum of before the time from which observations are replayed; all come before anything else.
    fn restore(&mut self, rollup: &Rollup);
    /// The incidents last told, before the replay.
    fn resume(&mut self, incidents: &[IncidentRow]);
    fn on_observations(&mut self, observations: &[Observation]);
    fn on_finding(&mut self, site: &SiteId, finding: &Finding);
    /// Central's time moved on.
    fn on_clock(&mut self, watermark_ms: u64);
    /// Incidents that changed or became part of others since the last call.
    fn changed_incidents(&mut self) -> IncidentChanges;
}

/// What the reckoner is told after the commit, in the order of arrival.
pub(super) enum News {
    Observations {
        site: SiteId,
        end_ms: u64,
        observations: Vec<Observation>,
    },
    Finding {
        site: SiteId,
        finding: Finding,
    },
}

pub(super) fn dictionary(
    dictionaries: &mut Dictionaries,
    archive: &dyn Archive,
    site: &SiteId,
    schema: u64,
) -> Result<Option<Arc<Dictionary>>, ArchiveError> {
    if let Some(known) = dictionaries.get(site, schema) {
        return Ok(Some(known));
    }
    let Some(bytes) = archive.birth(site, schema)? else {
        return Ok(None);
    };
    let Ok(Message {
        body: Body::Birth(birth),
        ..
    }) = codec::decode(&bytes)
    else {
        return Ok(None);
    };
    Ok(dictionaries.learn(site, &birth).ok())
}

pub(super) fn read(
    site: &SiteId,
    message: &Message,
    dictionary: &Dictionary,
    fresh: &[(u64, u64)],
) -> Result<Vec<Observation>, Unreadable> {
    let Body::Block(block) = &message.body else {
        return Ok(Vec::new());
    };
    let fresh: RangeSet = fresh.iter().copied().collect();
    decode::observations(site, dictionary, block, (message.seq_first, message.seq_last), &fresh)
}

/// What a stored payload said; of a block only what the sums before `from_ms` do not hold already.
pub(super) fn news_again(
    dictionaries: &mut Dictionaries,
    archive: &dyn Archive,
    from_ms: u64,
    payload: Payload,
) -> Result<Option<News>, ArchiveError> {
    let Payload {
        site,
        fresh,
        end_ms,
        bytes,
        ..
    } = payload;
    let Ok(message) = codec::decode(&bytes) else {
        return Ok(None);
    };
    match &message.body {
        Body::Finding(finding) => Ok(Some(News::Finding {
            site,
            finding: finding.clone(),
        })),
        Body::Block(block) => {
            let Some(dictionary) = dictionary(dictionaries, archive, &site, block.schema)? else {
                return Ok(None);
            };
            let Ok(mut observations) = read(&site, &message, &dictionary, &fresh) else {
                return Ok(None);
            };
            observations.retain(|observation| observation.start_ms >= from_ms);
            Ok(Some(News::Observations {
                site,
                end_ms,
                observations,
            }))
        }
        Body::Birth(_) | Body::Gap(_) => Ok(None),
    }
}

pub(super) fn tell(reckoner: &mut dyn Reckoner, watermark: &mut Watermark, news: News) {
    match news {
        News::Finding { site, finding } => reckoner.on_finding(&site, &finding),
        News::Observations {
            site,
            end_ms,
            observations,
        } => {
            // Far ahead of everything it would only make the reckoner forget what is now.
            if !watermark.is_ahead(end_ms) {
                reckoner.on_observations(&observations);
            }
            if let Some(now_ms) = watermark.heard(&site, end_ms) {
                reckoner.on_clock(now_ms);
            }
        }
    }
}
