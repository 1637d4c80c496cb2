"""Kafka's broker keys: TLS, of listeners and to ZooKeeper."""

from __future__ import annotations

from zkbroker.model.config.keys import PER_BROKER, Key, accepted, refused
from zkbroker.model.config.notes import NO_TLS, NO_ZK_TLS
from zkbroker.model.config.values import BOOLEAN, CLASS, LIST, PASSWORD, STRING, one_of

_TLS = (
    accepted(
        "ssl.client.auth",
        STRING,
        "none",
        "Whether clients must show a certificate.",
        one_of("required", "requested", "none"),
        note=NO_TLS,
        scope=PER_BROKER,
    ),
    accepted(
        "ssl.enabled.protocols",
        LIST,
        (
            "TLSv1.2",
            "TLSv1.3",
        ),
        "The TLS versions that are offered.",
        note=NO_TLS,
        scope=PER_BROKER,
    ),
    accepted("ssl.protocol", STRING, "TLSv1.3", "The TLS version that is preferred.", note=NO_TLS, scope=PER_BROKER),
    accepted("ssl.cipher.suites", LIST, (), "The cipher suites that are offered.", note=NO_TLS, scope=PER_BROKER),
    accepted(
        "ssl.keystore.location",
        STRING,
        None,
        "File with this broker's key and certificate.",
        note=NO_TLS,
        scope=PER_BROKER,
    ),
    accepted("ssl.keystore.password", PASSWORD, None, "Password of that file.", note=NO_TLS, scope=PER_BROKER),
    accepted("ssl.keystore.type", STRING, "JKS", "Format of that file.", note=NO_TLS, scope=PER_BROKER),
    accepted("ssl.keystore.key", PASSWORD, None, "The private key itself, as PEM.", note=NO_TLS, scope=PER_BROKER),
    accepted(
        "ssl.keystore.certificate.chain",
        PASSWORD,
        None,
        "The certificate chain itself, as PEM.",
        note=NO_TLS,
        scope=PER_BROKER,
    ),
    accepted("ssl.key.password", PASSWORD, None, "Password of the private key.", note=NO_TLS, scope=PER_BROKER),
    accepted(
        "ssl.truststore.location",
        STRING,
        None,
        "File with the certificates that are trusted.",
        note=NO_TLS,
        scope=PER_BROKER,
    ),
    accepted("ssl.truststore.password", PASSWORD, None, "Password of that file.", note=NO_TLS, scope=PER_BROKER),
    accepted("ssl.truststore.type", STRING, "JKS", "Format of that file.", note=NO_TLS, scope=PER_BROKER),
    accepted(
        "ssl.truststore.certificates",
        PASSWORD,
        None,
        "The trusted certificates themselves, as PEM.",
        note=NO_TLS,
        scope=PER_BROKER,
    ),
    accepted(
        "ssl.endpoint.identification.algorithm",
        STRING,
        "https",
        "How the name in a server's certificate is checked.",
        note=NO_TLS,
        scope=PER_BROKER,
    ),
    accepted(
        "ssl.principal.mapping.rules",
        STRING,
        "DEFAULT",
        "How the name in a client's certificate becomes a user name.",
        note=NO_TLS,
    ),
    accepted(
        "ssl.allow.dn.changes",
        BOOLEAN,
        False,
        "Whether a new certificate may have another distinguished name.",
        note=NO_TLS,
    ),
    accepted(
        "ssl.allow.san.changes",
        BOOLEAN,
        False,
        "Whether a new certificate may have other alternative names.",
        note=NO_TLS,
    ),
    accepted("ssl.provider", STRING, None, "The Java security provider for TLS.", note=NO_TLS, scope=PER_BROKER),
    accepted(
        "ssl.engine.factory.class", CLASS, None, "The Java class that makes TLS engines.", note=NO_TLS, scope=PER_BROKER
    ),
    accepted(
        "ssl.keymanager.algorithm",
        STRING,
        "SunX509",
        "Java's algorithm for the key store.",
        note=NO_TLS,
        scope=PER_BROKER,
    ),
    accepted(
        "ssl.trustmanager.algorithm",
        STRING,
        "PKIX",
        "Java's algorithm for the trust store.",
        note=NO_TLS,
        scope=PER_BROKER,
    ),
    accepted(
        "ssl.secure.random.implementation",
        STRING,
        None,
        "Java's source of randomness for TLS.",
        note=NO_TLS,
        scope=PER_BROKER,
    ),
)

_TLS_TO_ZOOKEEPER = (
    refused(
        "zookeeper.ssl.client.enable",
        BOOLEAN,
        False,
        "Whether the connection to ZooKeeper is encrypted.",
        note="TLS to ZooKeeper is not supported yet",
        harmless="false",
    ),
    accepted("zookeeper.ssl.protocol", STRING, "TLSv1.2", "The TLS version that is preferred.", note=NO_ZK_TLS),
    accepted("zookeeper.ssl.enabled.protocols", LIST, None, "The TLS versions that are offered.", note=NO_ZK_TLS),
    accepted("zookeeper.ssl.cipher.suites", LIST, None, "The cipher suites that are offered.", note=NO_ZK_TLS),
    accepted(
        "zookeeper.ssl.keystore.location", STRING, None, "File with this broker's key and certificate.", note=NO_ZK_TLS
    ),
    accepted("zookeeper.ssl.keystore.password", PASSWORD, None, "Password of that file.", note=NO_ZK_TLS),
    accepted("zookeeper.ssl.keystore.type", STRING, None, "Format of that file.", note=NO_ZK_TLS),
    accepted(
        "zookeeper.ssl.truststore.location",
        STRING,
        None,
        "File with the certificates that are trusted.",
        note=NO_ZK_TLS,
    ),
    accepted("zookeeper.ssl.truststore.password", PASSWORD, None, "Password of that file.", note=NO_ZK_TLS),
    accepted("zookeeper.ssl.truststore.type", STRING, None, "Format of that file.", note=NO_ZK_TLS),
    accepted(
        "zookeeper.ssl.endpoint.identification.algorithm",
        STRING,
        "HTTPS",
        "How the name in a server's certificate is checked.",
        note=NO_ZK_TLS,
    ),
    accepted("zookeeper.ssl.crl.enable", BOOLEAN, False, "Whether revocation lists are read.", note=NO_ZK_TLS),
    accepted("zookeeper.ssl.ocsp.enable", BOOLEAN, False, "Whether certificates are checked online.", note=NO_ZK_TLS),
)

TLS_KEYS: tuple[tuple[str, tuple[Key, ...]], ...] = (
    ("TLS", _TLS),
    ("TLS to ZooKeeper", _TLS_TO_ZOOKEEPER),
)
"""(section, its keys), in the order of the reference."""
