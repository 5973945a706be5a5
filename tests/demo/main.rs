//! `tillwatch-demo`: the founding story, live.

mod verdict;
mod watch;

fn main() {}
