//! What a request's target says (RFC 9112 section 3.2): path, query, authority.

use super::fact::HttpRequest;

impl HttpRequest {
    /// The path without the query, as sent.
    pub fn path(&self) -> &str {
        let target = split(&self.target).1;
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// What stands after `?`, if anything does.
    pub fn query(&self) -> Option<&str> {
        split(&self.target).1.split_once('?').map(|(_, query)| query)
    }

    /// Whom it is for: the authority of an absolute target outweighs Host (RFC 9112 section 3.2.2).
    pub fn authority(&self) -> Option<&str> {
        split(&self.target).0.or(self.host.as_deref())
    }

    /// The first header field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Takes a target in absolute form apart.
fn split(target: &str) -> (Option<&str>, &str) {
    if target.starts_with('/') {
        return (None, target);
    }
    let Some((_scheme, rest)) = target.split_once("://") else { return (None, target) };
    match rest.find(['/', '?']) {
        Some(end) => {
            let (authority, path) = rest.split_at(end);
            (Some(authority), path)
        }
        None => (Some(rest), "/"),
    }
}

#[cfg(test)]
mod tests {
    use crate::l7::fact::{HttpRequest, HttpVersion};

    fn request(target: &str, host: Option<&str>) -> HttpRequest {
        HttpRequest {
            version: HttpVersion::Http11,
            method: "GET".to_owned(),
            target: target.to_owned(),
            host: host.map(str::to_owned),
            headers: vec![("USER-agent".to_owned(), "ue".to_owned())],
        }
    }

    #[test]
    fn path_and_query_are_taken_apart() {
        let seen = request("/api/buy?item=7?x", Some("shop"));
        assert_eq!((seen.path(), seen.query()), ("/api/buy", Some("item=7?x")));
        assert_eq!((seen.authority(), seen.header("User-Agent")), (Some("shop"), Some("ue")));
        assert_eq!(request("/go?to=http://a/b", None).path(), "/go");
        assert_eq!(request("*", None).path(), "*");
    }

    #[test]
    fn an_absolute_target_gives_its_path_and_its_authority() {
        let seen = request("http://shop:80/a?b", Some("other"));
        assert_eq!((seen.path(), seen.query()), ("/a", Some("b")));
        assert_eq!(seen.authority(), Some("shop:80"));
        assert_eq!(request("http://shop", None).path(), "/");
        assert_eq!(request("http://shop?q", None).query(), Some("q"));
    }
}
