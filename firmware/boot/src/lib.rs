//! Partitions, slots, seed and first-boot growth: everything about the disk that is a decision.
