//! The keys that each group may have (podman-systemd.unit(5)).

use crate::Kind;

/// Keys of `[Quadlet]`.
pub(crate) const QUADLET: &str = "DefaultDependencies";

const CONTAINER: &str = "AddCapability AddDevice AddHost Annotation AppArmor AutoUpdate CgroupsMode ContainerName \
    ContainersConfModule DNS DNSOption DNSSearch DropCapability Entrypoint Environment EnvironmentFile EnvironmentHost Exec \
    ExposeHostPort GIDMap GlobalArgs Group GroupAdd HealthCmd HealthInterval HealthLogDestination HealthMaxLogCount \
    HealthMaxLogSize HealthOnFailure HealthRetries HealthStartPeriod HealthStartupCmd HealthStartupInterval \
    HealthStartupRetries HealthStartupSuccess HealthStartupTimeout HealthTimeout HostName HttpProxy IP IP6 Image Label \
    LogDriver LogOpt Mask Memory Mount Network NetworkAlias NoNewPrivileges Notify PidsLimit Pod PodmanArgs PublishPort Pull \
    ReadOnly ReadOnlyTmpfs ReloadCmd ReloadSignal RemapGid RemapUid RemapUidSize RemapUsers Retry RetryDelay Rootfs RunInit \
    SeccompProfile Secret SecurityLabelDisable SecurityLabelFileType SecurityLabelLevel SecurityLabelNested \
    SecurityLabelType ServiceName ShmSize StartWithPod StopSignal StopTimeout SubGIDMap SubUIDMap Sysctl Timezone Tmpfs \
    UIDMap Ulimit Unmask User UserNS VolatileTmp Volume WorkingDir";
const VOLUME: &str = "ContainersConfModule Copy Device Driver GID GlobalArgs Group Image Label Options PodmanArgs ServiceName \
    Type UID User VolumeName";
const NETWORK: &str = "ContainersConfModule DNS DisableDNS Driver Gateway GlobalArgs IPAMDriver IPRange IPv6 InterfaceName \
    Internal Label NetworkDeleteOnStop NetworkName Options PodmanArgs ServiceName Subnet";
const KUBE: &str = "AutoUpdate ConfigMap ContainersConfModule ExitCodePropagation GlobalArgs KubeDownForce LogDriver LogOpt \
    Network PodmanArgs PublishPort RemapGid RemapUid RemapUidSize RemapUsers ServiceName SetWorkingDirectory UserNS Yaml";
const IMAGE: &str = "AllTags Arch AuthFile CertDir ContainersConfModule Creds DecryptionKey GlobalArgs Image ImageTag OS \
    PodmanArgs Policy Retry RetryDelay ServiceName TLSVerify Variant";
const BUILD: &str = "Annotation Arch AuthFile BuildArg ContainersConfModule DNS DNSOption DNSSearch Environment File ForceRM \
    GlobalArgs GroupAdd IgnoreFile ImageTag Label Network PodmanArgs Pull Retry RetryDelay Secret ServiceName \
    SetWorkingDirectory TLSVerify Target Variant Volume";
const ARTIFACT: &str = "Artifact AuthFile CertDir ContainersConfModule Creds DecryptionKey GlobalArgs PodmanArgs Quiet Retry \
    RetryDelay ServiceName TLSVerify";
const POD: &str = "AddHost ContainersConfModule DNS DNSOption DNSSearch ExitPolicy GIDMap GlobalArgs HostName IP IP6 Label \
    Network NetworkAlias PodName PodmanArgs PublishPort RemapGid RemapUid RemapUidSize RemapUsers ServiceName ShmSize \
    StopTimeout SubGIDMap SubUIDMap UIDMap UserNS Volume";

/// Whether a file of this kind may have the key in its own group.
pub(crate) fn has(kind: Kind, key: &str) -> bool {
    let keys = match kind {
        Kind::Image => IMAGE,
        Kind::Artifact => ARTIFACT,
        Kind::Volume => VOLUME,
        Kind::Network => NETWORK,
        Kind::Build => BUILD,
        Kind::Container => CONTAINER,
        Kind::Kube => KUBE,
        Kind::Pod => POD,
    };
    keys.split_whitespace().any(|known| known == key)
}

/// Keys of `[Unit]` that name other units.
pub(crate) const DEPENDENCIES: [&str; 15] = [
    "After",
    "Before",
    "BindsTo",
    "Conflicts",
    "OnFailure",
    "OnSuccess",
    "PartOf",
    "PropagatesReloadTo",
    "PropagatesStopTo",
    "ReloadPropagatedFrom",
    "Requires",
    "Requisite",
    "StopPropagatedFrom",
    "Upholds",
    "Wants",
];

/// Keys of `[Service]` that do not go with what is run there.
pub(crate) const UNSUPPORTED: [&str; 3] = ["User", "Group", "DynamicUser"];
