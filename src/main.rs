//! The door: what the user types, reads and sees.

fn main() {}
