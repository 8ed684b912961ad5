//! Packages made by code, good and bad.
