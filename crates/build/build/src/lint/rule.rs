/// A rule of `build --check`: docker's 22 (frontend 1.26, `linter/ruleset.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Keywords are all upper or all lower case.
    ConsistentInstructionCasing,
    /// No file is copied that `.dockerignore` leaves out.
    CopyIgnoredFile,
    /// Stages have names of their own.
    DuplicateStageName,
    /// `EXPOSE` has neither addresses nor ports of the host.
    ExposeInvalidFormat,
    /// Protocols of `EXPOSE` are lower case.
    ExposeProtoCasing,
    /// `AS` is written as `FROM` is.
    FromAsCasing,
    /// `FROM --platform` is no constant.
    FromPlatformFlagConstDisallowed,
    /// A base image is for the platform of its stage.
    InvalidBaseImagePlatform,
    /// The defaults of arguments make a good name of a base.
    InvalidDefaultArgInFrom,
    /// The comment above an argument or stage describes it.
    InvalidDefinitionDescription,
    /// `CMD` and `ENTRYPOINT` are JSON.
    JSONArgsRecommended,
    /// `ENV` and `LABEL` have `=`.
    LegacyKeyValueFormat,
    /// No `MAINTAINER`.
    MaintainerDeprecated,
    /// One `CMD`, `ENTRYPOINT` and `HEALTHCHECK` per stage.
    MultipleInstructionsDisallowed,
    /// No empty line in a continued one.
    NoEmptyContinuation,
    /// `--platform=$TARGETPLATFORM` says nothing.
    RedundantTargetPlatform,
    /// `scratch` and `context` are no names of stages.
    ReservedStageName,
    /// No secrets in `ARG` and `ENV`.
    SecretsUsedInArgOrEnv,
    /// Names of stages are lower case.
    StageNameCasing,
    /// Arguments in `FROM` are declared before.
    UndefinedArgInFrom,
    /// Variables are defined before they are used.
    UndefinedVar,
    /// The first `WORKDIR` is absolute.
    WorkdirRelativePath,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 22] = [
        Self::ConsistentInstructionCasing,
        Self::CopyIgnoredFile,
        Self::DuplicateStageName,
        Self::ExposeInvalidFormat,
        Self::ExposeProtoCasing,
        Self::FromAsCasing,
        Self::FromPlatformFlagConstDisallowed,
        Self::InvalidBaseImagePlatform,
        Self::InvalidDefaultArgInFrom,
        Self::InvalidDefinitionDescription,
        Self::JSONArgsRecommended,
        Self::LegacyKeyValueFormat,
        Self::MaintainerDeprecated,
        Self::MultipleInstructionsDisallowed,
        Self::NoEmptyContinuation,
        Self::RedundantTargetPlatform,
        Self::ReservedStageName,
        Self::SecretsUsedInArgOrEnv,
        Self::StageNameCasing,
        Self::UndefinedArgInFrom,
        Self::UndefinedVar,
        Self::WorkdirRelativePath,
    ];

    /// Its name, as `# check=skip=` and reports have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Self::CopyIgnoredFile => "CopyIgnoredFile",
            Self::DuplicateStageName => "DuplicateStageName",
            Self::ExposeInvalidFormat => "ExposeInvalidFormat",
            Self::ExposeProtoCasing => "ExposeProtoCasing",
            Self::FromAsCasing => "FromAsCasing",
            Self::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Self::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Self::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Self::InvalidDefinitionDescription => "InvalidDefinitionDescription",
            Self::JSONArgsRecommended => "JSONArgsRecommended",
            Self::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Self::MaintainerDeprecated => "MaintainerDeprecated",
            Self::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Self::NoEmptyContinuation => "NoEmptyContinuation",
            Self::RedundantTargetPlatform => "RedundantTargetPlatform",
            Self::ReservedStageName => "ReservedStageName",
            Self::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Self::StageNameCasing => "StageNameCasing",
            Self::UndefinedArgInFrom => "UndefinedArgInFrom",
            Self::UndefinedVar => "UndefinedVar",
            Self::WorkdirRelativePath => "WorkdirRelativePath",
        }
    }

    /// What the rule is about: docker's sentence, which tools compare.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::ConsistentInstructionCasing => {
                "All commands within the Dockerfile should use the same casing (either upper or lower)"
            }
            Self::CopyIgnoredFile => "Attempting to Copy file that is excluded by .dockerignore",
            Self::DuplicateStageName => "Stage names should be unique",
            Self::ExposeInvalidFormat => {
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
            }
            Self::ExposeProtoCasing => "Protocol in EXPOSE instruction should be lowercase",
            Self::FromAsCasing => "The 'as' keyword should match the case of the 'from' keyword",
            Self::FromPlatformFlagConstDisallowed => "FROM --platform flag should not use a constant value",
            Self::InvalidBaseImagePlatform => "Base image platform does not match expected target platform",
            Self::InvalidDefaultArgInFrom => {
                "Default value for global ARG results in an empty or invalid base image name"
            }
            Self::InvalidDefinitionDescription => {
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment."
            }
            Self::JSONArgsRecommended => {
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
            }
            Self::LegacyKeyValueFormat => {
                "Legacy key/value format with whitespace separator should not be used"
            }
            Self::MaintainerDeprecated => {
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
            }
            Self::MultipleInstructionsDisallowed => {
                "Multiple instructions of the same type should not be used in the same stage"
            }
            Self::NoEmptyContinuation => "Empty continuation lines will become errors in a future release",
            Self::RedundantTargetPlatform => {
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
            }
            Self::ReservedStageName => "Reserved words should not be used as stage names",
            Self::SecretsUsedInArgOrEnv => "Sensitive data should not be used in the ARG or ENV commands",
            Self::StageNameCasing => "Stage names should be lowercase",
            Self::UndefinedArgInFrom => "FROM command must use declared ARGs",
            Self::UndefinedVar => "Variables should be defined before their use",
            Self::WorkdirRelativePath => {
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
            }
        }
    }

    /// Docker's page about the rule, when it has one.
    #[must_use]
    pub fn url(self) -> Option<String> {
        if self == Self::InvalidBaseImagePlatform {
            return None;
        }
        let mut slug = String::new();
        let name = self.name();
        for (index, c) in name.char_indices() {
            let next_is_lower =
                name[index + c.len_utf8()..].starts_with(|next: char| next.is_ascii_lowercase());
            // JSONArgs is json-args.
            let begins = c.is_ascii_uppercase() && index > 0;
            let after_lower = name[..index].ends_with(|before: char| before.is_ascii_lowercase());
            if begins && (after_lower || next_is_lower) {
                slug.push('-');
            }
            slug.push(c.to_ascii_lowercase());
        }
        Some(format!("https://docs.docker.com/go/dockerfile/rule/{slug}/"))
    }

    /// Whether it is only checked when `# check=experimental=` names it.
    pub(crate) const fn experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }
}
