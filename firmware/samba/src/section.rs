//! The notation of `smb.conf`: sections of parameters.
//!
//! Values are written as they are: Samba knows no escapes, so what could be misread must not come here.

/// One section: its name and its parameters, in order.
pub(crate) struct Section {
    text: String,
}

impl Section {
    /// Begins the section `[name]`.
    pub(crate) fn new(name: &str) -> Self {
        Self { text: format!("[{name}]\n") }
    }

    /// Adds a parameter; neither name nor value may hold a line break.
    pub(crate) fn set(&mut self, parameter: &str, value: &str) {
        debug_assert!(![parameter, value].iter().any(|text| text.contains(['\n', '\r'])), "validated text");
        self.text.push_str(&format!("\t{parameter} = {value}\n"));
    }

    /// Adds parameters in order.
    pub(crate) fn set_all(&mut self, parameters: &[(&str, &str)]) {
        for (parameter, value) in parameters {
            self.set(parameter, value);
        }
    }

    /// The section as it stands in the file.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}
