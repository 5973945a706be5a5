//! What an incident costs: the door to expectation, correlation, price and rank.

pub mod chart;
