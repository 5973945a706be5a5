//! A store as a queue: customers arrive, wait for the first free till, and leave when that takes too long.
//!
//! In: arrivals per minute, the number of tills, faults that make sales slower. Out: who paid when, and who left.
//! What is lost follows from queues alone; nobody decides on a share. Each customer is as patient and as quick in both lives.

use super::Lost;
use super::random::Random;
use super::scenario::Event;

/// Minutes at the till: mean and spread of the logarithm.
const SERVICE_MINUTES: f64 = 1.1;
const SERVICE_SIGMA: f64 = 0.45;
/// Minutes that customers are ready to wait on average, and the least.
const PATIENCE_MINUTES: f64 = 5.0;
const PATIENCE_MIN_MINUTES: f64 = 1.0;
/// Part of the day's peak that tills are busy.
const UTILIZATION: f64 = 0.75;

/// Somebody who wants to buy.
#[derive(Clone, Debug)]
pub(super) struct Customer {
    arrives: f64,
    service: f64,
    patience: f64,
    pub(super) basket_minor: i64,
}

/// Tills for a busiest rate.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tills of one store"
)]
pub(super) fn count(busiest: f64) -> usize {
    (busiest * SERVICE_MINUTES / UTILIZATION).ceil().max(1.0) as usize
}

/// A day's customers by their minute of the day.
pub(super) fn arrivals(rates: &[f64], random: &mut Random) -> Vec<Customer> {
    let mut customers = Vec::new();
    for (minute, rate) in (0_u32..).zip(rates).filter(|(_, rate)| **rate > 0.0) {
        let mut at = f64::from(minute);
        loop {
            at += random.exponential(1.0 / rate);
            if at >= f64::from(minute + 1) {
                break;
            }
            customers.push(Customer {
                arrives: at,
                service: SERVICE_MINUTES
                    * (SERVICE_SIGMA * random.normal() - SERVICE_SIGMA * SERVICE_SIGMA / 2.0).exp(),
                patience: PATIENCE_MIN_MINUTES + random.exponential(PATIENCE_MINUTES),
                basket_minor: 0,
            });
        }
    }
    customers
}

/// How much slower each sale must be for so many customers to leave in the long run: tills that are all busy serve
/// `tills / (service x slowdown)` a minute, and the rest leaves.
pub(super) fn slowdown(loss: f64, tills: usize, rates: &[f64], from_minute: u32) -> f64 {
    let rate = rates.get(from_minute as usize).copied().unwrap_or(0.0).max(0.05);
    let capacity = f64::from(u32::try_from(tills).unwrap_or(u32::MAX)) / SERVICE_MINUTES;
    (capacity / (rate * (1.0 - loss.min(0.95)))).max(1.0)
}

/// When each customer has paid, in minutes of the day; `None` for who left.
pub(super) fn serve(customers: &[Customer], tills: usize, slower: &[(&Event, f64)]) -> Vec<Option<f64>> {
    let mut free = vec![0.0_f64; tills];
    let mut paid = Vec::with_capacity(customers.len());
    for customer in customers {
        let first = free
            .iter_mut()
            .min_by(|a, b| a.total_cmp(b))
            .expect("a store has a till");
        let starts = first.max(customer.arrives);
        if starts - customer.arrives > customer.patience {
            paid.push(None);
            continue;
        }
        let lasting = slower.iter().filter(|(event, _)| event.strikes(minute(starts)));
        let factor: f64 = lasting.map(|(_, factor)| factor).product();
        *first = starts + customer.service * factor;
        paid.push(Some(*first));
    }
    paid
}

/// Who paid in the healthy life and left in the faulty one, less who paid only in the faulty one, by the event that came
/// last before.
pub(super) fn lost(
    customers: &[Customer],
    healthy: &[Option<f64>],
    faulty: &[Option<f64>],
    events: &[(usize, Event)],
) -> Vec<(usize, Lost)> {
    let mut lost = Vec::new();
    for ((customer, healthy), faulty) in customers.iter().zip(healthy).zip(faulty) {
        let sign = i64::from(healthy.is_some()) - i64::from(faulty.is_some());
        if sign == 0 {
            continue;
        }
        let begun = events
            .iter()
            .filter(|(_, event)| event.from_minute <= minute(customer.arrives));
        if let Some((event, _)) = begun.max_by_key(|(_, event)| event.from_minute).or(events.first()) {
            let one = Lost {
                transactions: sign,
                amount_minor: sign * customer.basket_minor,
            };
            lost.push((*event, one));
        }
    }
    lost
}

/// Transactions and money by the minute in which they were paid.
pub(super) fn by_minute(customers: &[Customer], paid: &[Option<f64>]) -> Vec<(u32, i64)> {
    let mut minutes = vec![(0, 0); 1_440];
    for (customer, paid) in customers.iter().zip(paid) {
        let Some(at) = paid else { continue };
        let last = minutes.len() - 1;
        let minute: &mut (u32, i64) = &mut minutes[(minute(*at) as usize).min(last)];
        minute.0 += 1;
        minute.1 += customer.basket_minor;
    }
    minutes
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a minute of the day"
)]
fn minute(at: f64) -> u32 {
    at as u32
}
