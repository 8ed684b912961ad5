//! Decisions of the service supervisor, as a sans-IO state machine.
