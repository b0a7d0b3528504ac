//! Parse, call, report.
fn main() {}
