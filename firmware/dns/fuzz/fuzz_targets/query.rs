//! Any bytes as a client's query.

#![no_main]

use kontor_dns::wire::parse_query;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    if let Ok(query) = parse_query(message) {
        assert_eq!(query.question.len(), query.qname.wire().len() + 4);
        let _ = query.qname.to_string();
    }
});
