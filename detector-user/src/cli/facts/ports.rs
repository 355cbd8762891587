//! Ports that belong to a protocol which is none of ours. The lines of facts are to be compared with
//! tshark's, and tshark believes such a port, whatever passes there: HTTP to port 22 is SSH to it.
//!
//! The ports are those of tshark 4.0.17, measured: a request, and a ClientHello, were sent to each of
//! the 65,535, and these it did not find. Rules are not concerned: they find what passes.

use crate::{
    flow::Found,
    l7::{Fact, fact::HttpVersion},
};

/// Whether this was said on a port that is another protocol's.
///
/// Behind that protocol it counts again: after STARTTLS, inside CONNECT, through SOCKS.
pub(super) fn is_anothers(found: &Found) -> bool {
    let ports = [found.destination.port, found.source.port];
    match &found.fact {
        Fact::HttpRequest(request) if request.version != HttpVersion::Http2 => {
            let first = ports.iter().find(|port| is_http(**port) || is_taken_from_http(**port));
            found.opening && first.is_some_and(|port| !is_http(*port))
        }
        // After X.224 has agreed on it (MS-RDPBCGR section 5.4.5) tshark still takes it for X.224.
        Fact::Tls(_) if !found.opening => found.is_on(RDP),
        Fact::Tls(_) => {
            let first = ports.iter().find(|port| is_tls(**port) || is_taken_from_tls(**port));
            first.is_some_and(|port| !is_tls(*port))
        }
        Fact::HttpRequest(_)
        | Fact::HttpResponse(_)
        | Fact::Quic(_)
        | Fact::Dns(_)
        | Fact::Mqtt(_)
        | Fact::Coap(_) => false,
    }
}

const RDP: u16 = 3389;

const fn is_http(port: u16) -> bool {
    matches!(port, 80 | 631 | 1900 | 2710 | 2869 | 3128 | 3132 | 3689 | 5985 | 8080 | 8088 | 11371)
}

const fn is_tls(port: u16) -> bool {
    matches!(
        port,
        324 | 443 | 465 | 636 | 802 | 853 | 993 | 995 | 1300 | 2221 | 2443 | 3249
            ..=3252 | 3496 | 5061 | 5671 | 5684 | 5868 | 8883 | 11207 | 19999 | 27017
    )
}

const fn is_taken_from_http(port: u16) -> bool {
    matches!(port, 143 | 674 | 2501 | 22222) || is_taken(port)
}

const fn is_taken_from_tls(port: u16) -> bool {
    matches!(port, 1344 | 3002 | 3003 | 3006 | 3386 | 4222 | 4249 | 4250 | 5000 | 5094)
        || is_http(port)
        || is_taken(port)
}

const fn is_taken(port: u16) -> bool {
    matches!(
        port,
        7 | 13 | 19..=23 | 25 | 37 | 42..=43 | 49 | 53 | 70 | 79 | 88 | 102 | 110..=111 | 119
            | 123 | 139 | 161..=162 | 179 | 210 | 323 | 389 | 427 | 445 | 464 | 500 | 512..=515
            | 524 | 547..=548 | 554 | 564 | 587 | 639 | 647 | 705 | 854 | 862 | 873 | 925 | 988
            | 1080 | 1090 | 1099 | 1102 | 1153 | 1194 | 1213 | 1433 | 1533 | 1547 | 1723 | 1861
            | 1863 | 1883 | 1935 | 2099 | 2123 | 2126 | 2152 | 2234 | 2240 | 2269 | 2321..=2322
            | 2345 | 2401 | 2404 | 2433 | 2502 | 2571 | 2575 | 2600 | 2812 | 2944..=2945 | 3014
            | 3016..=3019 | 3245..=3248 | 3268 | 3288 | 3306 | 3357 | 3369 | 3452 | 3478 | 3632
            | 3671 | 3724 | 3804 | 3860 | 3863 | 3868 | 3918 | 4002 | 4155 | 4189 | 4223 | 4342
            | 4420 | 4551 | 4555..=4556 | 4712 | 4730 | 4739 | 4788 | 4840 | 4880 | 5010 | 5060
            | 5084 | 5222 | 5253 | 5353 | 5432 | 5445 | 5500..=5501 | 5534 | 5672 | 5683 | 5701
            | 5900..=5901 | 5997 | 6000..=6063 | 6068 | 6084 | 6121 | 6160 | 6346 | 6379 | 6417
            | 6653 | 6667..=6668 | 6881..=6889 | 7000 | 7075 | 7171..=7172 | 7236 | 7275..=7276
            | 7871 | 7911 | 8009 | 8023 | 8074 | 8085 | 8554 | 8567 | 9009 | 9092 | 9300 | 9418
            | 9956 | 10288 | 11211 | 13400 | 14001 | 15740 | 17500 | 17755..=17756 | 19006
            | 19042..=19043 | 19506 | 19543 | 21064 | 24800 | 29418 | 34980 | 44321..=44322
            | 44818 | 48049 | 48898 | 57000
    )
}

#[cfg(test)]
mod tests {
    use detector_common::packet::Address;

    use super::*;
    use crate::{
        flow::{Endpoint, Stamp},
        l7::fact::{ClientHello, HttpRequest},
    };

    fn request() -> Fact {
        Fact::HttpRequest(HttpRequest {
            version: HttpVersion::Http11,
            method: "GET".into(),
            target: "/".into(),
            host: None,
            headers: Vec::new(),
        })
    }

    fn hello() -> Fact {
        Fact::Tls(ClientHello {
            sni: Some("a.example".into()),
            alpn: Vec::new(),
            version: 0x0303,
            ja4: None,
            ech: false,
        })
    }

    fn taken(fact: Fact, source: u16, destination: u16, opening: bool) -> bool {
        let end = |port| Endpoint { address: Address::v4([192, 0, 2, 1]), port };
        is_anothers(&Found {
            fact,
            source: end(source),
            destination: end(destination),
            stamp: Stamp::default(),
            opening,
        })
    }

    #[test]
    fn a_port_is_believed_by_its_first_word_only() {
        assert!(taken(request(), 40_001, 22, true));
        assert!(!taken(request(), 40_001, 1080, false));
        assert!(taken(hello(), 40_001, 25, true));
        assert!(!taken(hello(), 40_001, 25, false));
        assert!(taken(hello(), 40_001, 3389, false));
    }

    #[test]
    fn ports_of_http_take_tls_and_those_of_tls_do_not_take_http() {
        assert!(taken(hello(), 40_001, 8080, true));
        assert!(!taken(hello(), 40_001, 8080, false));
        assert!(!taken(request(), 40_001, 443, true));
        assert!(!taken(request(), 40_001, 5000, true));
    }

    #[test]
    fn the_servers_port_counts_before_the_clients() {
        assert!(!taken(request(), 2345, 2869, true));
        assert!(!taken(hello(), 6001, 443, true));
        assert!(taken(request(), 6001, 8123, true));
    }
}
