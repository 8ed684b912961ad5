//! Answers of servers, carrier changes and time into a client; a lease in use must be one a link can have.
//!
//! Each step is a kind and a length, then the octets of the answer's options.
#![no_main]

use kontor_dhcp4::client::{Client, ClientConfig, Event};
use kontor_dhcp4::wire::{MessageType, code};
use kontor_dhcp4::{Instant, Message};
use kontor_dhcp4_fuzz::with_options;
use libfuzzer_sys::fuzz_target;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// What a server sends for this request, with the fuzzer's options in the wire's form.
fn answer(request: &Message, kind: u8, last: u8, options: &[u8]) -> Option<Message> {
    let kinds = [MessageType::Offer, MessageType::Ack, MessageType::Nak];
    let mut message = request.reply(kinds[usize::from(kind % 3)]);
    message.yiaddr = [10, 0, 2, last].into();
    message.options.set_address(code::SERVER_ID, [10, 0, 2, 2].into());
    with_options(&message, options)
}

fuzz_target!(|bytes: &[u8]| {
    let mut client = Client::new(ClientConfig::for_mac(MAC), 1);
    let (mut now, mut rest) = (Instant::from_secs(1), bytes);
    let mut request = Message::request(MessageType::Discover, 0, MAC);
    client.link_up(now);
    while let Some(([kind, last, length], after)) = rest.split_first_chunk::<3>() {
        let (options, next) = after.split_at(usize::from(*length).min(after.len()));
        while let Some(transmit) = client.poll_transmit() {
            request = transmit.message;
        }
        match kind & 7 {
            7 => client.link_down(),
            6 => client.link_up(now),
            5 => client.handle_conflict(now),
            4 => {
                now = client.poll_timeout().unwrap_or(now).max(now);
                client.handle_timeout(now);
            }
            _ => {
                if let Some(message) = answer(&request, kind >> 3, *last & 3, options) {
                    client.handle_message(now, &message);
                }
            }
        }
        while let Some(event) = client.poll_event() {
            if let Event::Configured(lease) = event {
                assert!(lease.t1_s < lease.t2_s && lease.t2_s <= lease.lease_time_s, "{lease:?}");
                assert!(lease.address.prefix_len() > 0, "{lease:?}");
            }
        }
        assert!(client.poll_timeout().is_none_or(|at| at >= now || client.lease().is_some()));
        rest = next;
    }
});
