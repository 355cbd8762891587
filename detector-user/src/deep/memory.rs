//! What later packets of a flow need of earlier ones: the ClientHello, requests without an answer.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    num::NonZeroUsize,
    sync::Arc,
};

use detector_common::packet::Protocol;
use lru::LruCache;

use crate::{
    detection::Flow,
    l7::fact::{Fact, HttpRequest, HttpVersion},
};

/// Requests of one flow that wait for an answer (HTTP/1.1 pipelining, HTTP/2 streams).
const MAX_REQUESTS: usize = 32;

/// A flow, whichever way the packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId {
    ue: (IpAddr, u16),
    application: (IpAddr, u16),
    protocol: Protocol,
}

impl FlowId {
    /// The flow of a packet.
    pub fn of(flow: &Flow) -> Self {
        Self {
            ue: (flow.ue_ip, flow.ue_port),
            application: (flow.app_ip, flow.app_port),
            protocol: flow.protocol,
        }
    }

    /// A number that stands for it where flows are counted.
    pub(super) fn mark(self) -> u64 {
        // SipHash with fixed keys: the same flows give the same marks in replay.
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

#[derive(Debug, Default)]
struct Remembered {
    hello: Option<Arc<Fact>>,
    requests: VecDeque<Arc<HttpRequest>>,
}

/// Flows, the longest unused of which gives way.
#[derive(Debug)]
pub(super) struct FlowMemory {
    flows: LruCache<FlowId, Remembered>,
    forgotten: u64,
}

impl FlowMemory {
    pub(super) fn new(most: usize) -> Self {
        let most = NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
        Self { flows: LruCache::new(most), forgotten: 0 }
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn flow(&mut self, id: FlowId) -> &mut Remembered {
        if !self.flows.contains(&id) && self.flows.len() == self.flows.cap().get() {
            self.forgotten += 1;
        }
        self.flows.get_or_insert_mut(id, Remembered::default)
    }

    /// Keeps a ClientHello; other messages are none.
    pub(super) fn hello(&mut self, id: FlowId, fact: &Arc<Fact>) {
        match &**fact {
            Fact::Tls(_) | Fact::Quic(_) => self.flow(id).hello = Some(fact.clone()),
            Fact::Dns(_)
            | Fact::HttpRequest(_)
            | Fact::HttpResponse(_)
            | Fact::Mqtt(_)
            | Fact::Coap(_) => {}
        }
    }

    /// The ClientHello of a flow that goes on.
    pub(super) fn hello_of(&mut self, id: FlowId) -> Option<Arc<Fact>> {
        self.flows.get(&id)?.hello.clone()
    }

    /// The ClientHello of a flow that is over, which is forgotten.
    pub(super) fn end(&mut self, id: FlowId) -> Option<Arc<Fact>> {
        self.flows.pop(&id)?.hello
    }

    /// Keeps a request; the request that a response answers.
    pub(super) fn exchange(&mut self, id: FlowId, fact: &Fact) -> Option<Arc<HttpRequest>> {
        match fact {
            Fact::HttpRequest(request) => {
                let requests = &mut self.flow(id).requests;
                if requests.len() == MAX_REQUESTS {
                    requests.pop_front();
                }
                requests.push_back(Arc::new(request.clone()));
                None
            }
            Fact::HttpResponse(response) => {
                let requests = &mut self.flows.get_mut(&id)?.requests;
                // Interim responses (RFC 9110 section 15.2) come before the answer; after 101
                // there is no HTTP/1 any more.
                if (100..200).contains(&response.status) && response.status != 101 {
                    return requests.front().cloned();
                }
                // Streams of HTTP/2 are answered in any order.
                let clear = response.version != HttpVersion::Http2 || requests.len() == 1;
                requests.pop_front().filter(|_| clear)
            }
            Fact::Dns(_) | Fact::Tls(_) | Fact::Quic(_) | Fact::Mqtt(_) | Fact::Coap(_) => None,
        }
    }
}
