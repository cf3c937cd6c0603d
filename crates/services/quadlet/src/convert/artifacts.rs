//! `.image` and `.artifact`: what is pulled.

use super::{Conversion, bad};
use crate::Error;

/// Keys that both have.
const TEXTS: [(&str, &str); 6] = [
    ("AuthFile", "--authfile"),
    ("CertDir", "--cert-dir"),
    ("Creds", "--creds"),
    ("DecryptionKey", "--decryption-key"),
    ("Retry", "--retry"),
    ("RetryDelay", "--retry-delay"),
];

impl Conversion<'_> {
    pub(super) fn image(&mut self) -> Result<(), Error> {
        let image = self.value("Image").ok_or_else(|| bad("no Image key specified"))?;
        let mut pull = self.command();
        pull.add(["image", "pull"]);
        self.texts(&mut pull, &TEXTS);
        let texts = [
            ("Arch", "--arch"),
            ("OS", "--os"),
            ("Policy", "--policy"),
            ("Variant", "--variant"),
        ];
        self.texts(&mut pull, &texts);
        let switches = [("AllTags", "--all-tags"), ("TLSVerify", "--tls-verify")];
        self.switches(&mut pull, &switches);
        self.own_arguments(&mut pull);
        pull.add([image]);
        self.exec("ExecStart", &pull);
        self.once(true);
        let name = self.value("ImageTag").unwrap_or(image);
        self.makes(name);
        Ok(())
    }

    pub(super) fn artifact(&mut self) -> Result<(), Error> {
        let name = self
            .value("Artifact")
            .ok_or_else(|| bad("no Artifact key specified"))?;
        let mut pull = self.command();
        pull.add(["artifact", "pull"]);
        self.texts(&mut pull, &TEXTS);
        let switches = [("Quiet", "--quiet"), ("TLSVerify", "--tls-verify")];
        self.switches(&mut pull, &switches);
        self.own_arguments(&mut pull);
        pull.add([name]);
        self.exec("ExecStart", &pull);
        self.once(true);
        self.makes(name);
        Ok(())
    }
}
