//! The site rendered as one nftables table.
