//! The simulated office and Internet, and the end-to-end tests on the real image.
