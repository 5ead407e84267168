//! The Bookinfo sample application.
fn main() {}
