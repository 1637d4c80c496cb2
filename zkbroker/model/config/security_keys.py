"""Kafka's broker keys: SASL, authorization, tokens and passwords."""

from __future__ import annotations

from zkbroker.model.config.keys import PER_BROKER, Key, accepted, refused
from zkbroker.model.config.notes import JAVA_ONLY, NO_DYNAMIC_PASSWORDS, NO_SASL
from zkbroker.model.config.values import CLASS, DOUBLE, INT, LIST, LONG, PASSWORD, SHORT, STRING, at_least

_SASL = (
    accepted(
        "sasl.enabled.mechanisms",
        LIST,
        ("GSSAPI",),
        "The mechanisms by which clients may authenticate.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.mechanism.inter.broker.protocol",
        STRING,
        "GSSAPI",
        "The mechanism by which brokers authenticate to each other.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.mechanism.controller.protocol",
        STRING,
        "GSSAPI",
        "The mechanism by which brokers authenticate to KRaft controllers.",
        note=NO_SASL,
    ),
    accepted(
        "sasl.jaas.config",
        PASSWORD,
        None,
        "Login modules and credentials in JAAS form.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted("sasl.server.callback.handler.class", CLASS, None, "Java class that checks credentials.", note=NO_SASL),
    accepted(
        "sasl.client.callback.handler.class",
        CLASS,
        None,
        "Java class that supplies credentials to other brokers.",
        note=NO_SASL,
    ),
    accepted(
        "sasl.login.callback.handler.class", CLASS, None, "Java class that supplies credentials at login.", note=NO_SASL
    ),
    accepted("sasl.login.class", CLASS, None, "Java class that logs in.", note=NO_SASL),
    accepted(
        "sasl.login.connect.timeout.ms", INT, None, "How long connecting to a login server may take.", note=NO_SASL
    ),
    accepted("sasl.login.read.timeout.ms", INT, None, "How long the answer of a login server may take.", note=NO_SASL),
    accepted("sasl.login.retry.backoff.ms", LONG, 100, "First wait before a login is tried again.", note=NO_SASL),
    accepted(
        "sasl.login.retry.backoff.max.ms", LONG, 10000, "Longest wait before a login is tried again.", note=NO_SASL
    ),
    accepted(
        "sasl.login.refresh.buffer.seconds",
        SHORT,
        300,
        "How long before its end a credential is renewed at the latest.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.login.refresh.min.period.seconds",
        SHORT,
        60,
        "How long a credential is used at least before it is renewed.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.login.refresh.window.factor",
        DOUBLE,
        0.8,
        "After which part of its life a credential is renewed.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.login.refresh.window.jitter",
        DOUBLE,
        0.05,
        "How much of its life is added to that at random.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.server.max.receive.size", INT, 524288, "The largest message of an authentication exchange.", note=NO_SASL
    ),
    accepted("sasl.kerberos.kinit.cmd", STRING, "/usr/bin/kinit", "Path of kinit.", note=NO_SASL, scope=PER_BROKER),
    accepted(
        "sasl.kerberos.service.name",
        STRING,
        None,
        "The Kerberos name under which brokers run.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.kerberos.min.time.before.relogin",
        LONG,
        60000,
        "How long to wait between two Kerberos logins.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.kerberos.principal.to.local.rules",
        LIST,
        ("DEFAULT",),
        "How a Kerberos principal becomes a user name.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.kerberos.ticket.renew.jitter",
        DOUBLE,
        0.05,
        "How much is added at random to the time of renewal.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.kerberos.ticket.renew.window.factor",
        DOUBLE,
        0.8,
        "After which part of its life a ticket is renewed.",
        note=NO_SASL,
        scope=PER_BROKER,
    ),
    accepted(
        "sasl.oauthbearer.clock.skew.seconds",
        INT,
        30,
        "How far the clock of the token's issuer may be off.",
        note=NO_SASL,
    ),
    accepted("sasl.oauthbearer.expected.audience", LIST, None, "For whom a token must have been issued.", note=NO_SASL),
    accepted("sasl.oauthbearer.expected.issuer", STRING, None, "By whom a token must have been issued.", note=NO_SASL),
    accepted("sasl.oauthbearer.jwks.endpoint.url", STRING, None, "Where the issuer's keys are.", note=NO_SASL),
    accepted(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms",
        LONG,
        3_600_000,
        "How long those keys are remembered.",
        note=NO_SASL,
    ),
    accepted(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
        LONG,
        100,
        "First wait before they are asked for again.",
        note=NO_SASL,
    ),
    accepted(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
        LONG,
        10000,
        "Longest wait before they are asked for again.",
        note=NO_SASL,
    ),
    accepted("sasl.oauthbearer.token.endpoint.url", STRING, None, "Where tokens are issued.", note=NO_SASL),
    accepted(
        "sasl.oauthbearer.scope.claim.name", STRING, "scope", "The claim of a token that holds its scope.", note=NO_SASL
    ),
    accepted(
        "sasl.oauthbearer.sub.claim.name",
        STRING,
        "sub",
        "The claim of a token that holds the user's name.",
        note=NO_SASL,
    ),
)

_AUTHORIZATION_TOKENS_AND_PASSWORDS = (
    refused(
        "authorizer.class.name",
        STRING,
        "",
        "The Java class that decides who may do what.",
        note="access rules are not supported yet: everyone who connects may do everything",
        harmless="",
    ),
    accepted(
        "principal.builder.class",
        CLASS,
        "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
        "The Java class that says who a connection belongs to.",
        note="everyone is anonymous: only PLAINTEXT listeners exist",
        scope=PER_BROKER,
    ),
    accepted("security.providers", STRING, None, "Java classes that supply security algorithms.", note=JAVA_ONLY),
    accepted(
        "delegation.token.secret.key", PASSWORD, None, "Secret from which delegation tokens are made.", note=NO_SASL
    ),
    accepted(
        "delegation.token.master.key", PASSWORD, None, "The old name of delegation.token.secret.key.", note=NO_SASL
    ),
    accepted(
        "delegation.token.max.lifetime.ms",
        LONG,
        604_800_000,
        "How long a delegation token can be renewed.",
        at_least(1),
        note=NO_SASL,
    ),
    accepted(
        "delegation.token.expiry.time.ms",
        LONG,
        86_400_000,
        "After how long a delegation token must be renewed.",
        at_least(1),
        note=NO_SASL,
    ),
    accepted(
        "delegation.token.expiry.check.interval.ms",
        LONG,
        3_600_000,
        "How often is looked for expired delegation tokens.",
        at_least(1),
        note=NO_SASL,
    ),
    accepted(
        "password.encoder.secret",
        PASSWORD,
        None,
        "Secret with which passwords set at run time are encrypted in ZooKeeper.",
        note=NO_DYNAMIC_PASSWORDS,
    ),
    accepted(
        "password.encoder.old.secret",
        PASSWORD,
        None,
        "The secret used before, while it is being changed.",
        note=NO_DYNAMIC_PASSWORDS,
    ),
    accepted(
        "password.encoder.keyfactory.algorithm",
        STRING,
        None,
        "Algorithm that makes a key of the secret.",
        note=NO_DYNAMIC_PASSWORDS,
    ),
    accepted(
        "password.encoder.cipher.algorithm",
        STRING,
        "AES/CBC/PKCS5Padding",
        "Cipher for such passwords.",
        note=NO_DYNAMIC_PASSWORDS,
    ),
    accepted(
        "password.encoder.key.length", INT, 128, "Length of that key in bits.", at_least(8), note=NO_DYNAMIC_PASSWORDS
    ),
    accepted(
        "password.encoder.iterations",
        INT,
        4096,
        "Rounds of the key's derivation.",
        at_least(1024),
        note=NO_DYNAMIC_PASSWORDS,
    ),
)

SECURITY_KEYS: tuple[tuple[str, tuple[Key, ...]], ...] = (
    ("SASL", _SASL),
    ("Authorization, tokens and passwords", _AUTHORIZATION_TOKENS_AND_PASSWORDS),
)
"""(section, its keys), in the order of the reference."""
