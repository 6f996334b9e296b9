//! The variables of answer files, command lines and boot commands: a fixed few, replaced as text. What else stands in
//! braces belongs to somebody else.

/// What the variables stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables {
    /// `{{ hostname }}`: that of the image.
    pub hostname: String,
    /// Host and port of the build's HTTP server as the guest reaches it, where there is one.
    pub server: Option<(String, u16)>,
}

impl Variables {
    /// The value of a variable, by its name or by Packer's.
    fn value(&self, name: &str) -> Option<String> {
        let server = self.server.as_ref();
        match name {
            "hostname" | ".Name" => Some(self.hostname.clone()),
            "http" => server.map(|(host, port)| format!("http://{host}:{port}")),
            ".HTTPIP" => server.map(|(host, _)| host.clone()),
            ".HTTPPort" => server.map(|(_, port)| port.to_string()),
            _ => None,
        }
    }

    /// The text with the variables replaced, and what stands in braces and is none of them: its place in characters
    /// from 1, and its name.
    #[must_use]
    pub fn replace(&self, text: &str) -> (String, Vec<(usize, String)>) {
        let (mut out, mut unknown) = (String::with_capacity(text.len()), vec![]);
        let mut rest = text;
        while let Some(open) = rest.find("{{") {
            let Some(length) = rest[open + 2..].find("}}") else { break };
            let name = rest[open + 2..open + 2 + length].trim();
            let end = open + 2 + length + 2;
            out.push_str(&rest[..open]);
            match self.value(name) {
                Some(value) => out.push_str(&value),
                None => {
                    let before = text.len() - rest.len() + open;
                    unknown.push((text[..before].chars().count() + 1, name.to_owned()));
                    out.push_str(&rest[open..end]);
                }
            }
            rest = &rest[end..];
        }
        out.push_str(rest);
        (out, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_variables_are_replaced_and_others_are_left_and_told() {
        let variables =
            Variables { hostname: "web".to_owned(), server: Some(("10.0.2.2".to_owned(), 8000)) };
        let (text, unknown) = variables.replace(
            "url={{http}}/a {{ hostname }} {{ .HTTPIP }}:{{ .HTTPPort }} ä{{ ds.meta }} {{",
        );
        assert_eq!(text, "url=http://10.0.2.2:8000/a web 10.0.2.2:8000 ä{{ ds.meta }} {{");
        assert_eq!(unknown, [(62, "ds.meta".to_owned())]);
    }

    #[test]
    fn without_a_server_there_is_no_address() {
        let variables = Variables { hostname: "web".to_owned(), server: None };
        assert_eq!(
            variables.replace("{{ http }}"),
            ("{{ http }}".to_owned(), vec![(1, "http".to_owned())])
        );
    }
}
