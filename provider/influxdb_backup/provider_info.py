"""What Airflow is told of this package. Runs while Airflow itself is being set up, so it imports nothing."""

_NAME = "InfluxDB backup"

_FORM = {
    "token": {
        "label": "API token",
        "description": "2.x: a token that may read (and to restore, write) the buckets. Also JWTs of 1.x. "
        "Here or in the field Password with no user, never both: a token here beside a user or password is refused.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "organization": {
        "label": "Organization",
        "description": "2.x: name or id; must be the organization of the token.",
        "schema": {"type": ["string", "null"]},
    },
    "tls": {
        "label": "TLS",
        "description": "Speak https to the server.",
        "schema": {"type": "boolean", "default": False},
    },
    "verify_tls": {
        "label": "Verify TLS",
        "description": "Check the server's certificate. Switch it off only to try something out.",
        "schema": {"type": "boolean", "default": True},
    },
    "ca_file": {
        "label": "CA file",
        "description": "Path on the workers of the certificates that sign the server's, when the system's do not.",
        "schema": {"type": ["string", "null"]},
    },
    "snapshot_address": {
        "label": "Backup port (1.x)",
        "description": "host:port of bind-address (8088), to copy whole shards. It has no credentials and no TLS.",
        "schema": {"type": ["string", "null"]},
    },
    "version": {
        "label": "Version",
        "description": "auto asks the server; name one where a proxy hides the answer. Supported: 1.6 and later 1.x, "
        "2.4 and later 2.x. The tests ran up to 1.12; 1.13 is taken and was not tried. Not supported: 3.x, refused.",
        "schema": {"type": "string", "enum": ["auto", "1.8", "1.12", "1.13", "2.7", "2.9"], "default": "auto"},
    },
    "timeout": {
        "label": "Timeout",
        "description": "Seconds that a silence within a reply may take; next to nothing in twice that counts as one.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "default": 60},
    },
}


def get_provider_info() -> dict[str, object]:
    """The provider's description, in the form of Airflow's ``provider_info.schema.json``."""
    package = "influxdb_backup"
    return {
        "package-name": "airflow-provider-influxdb-backup",
        "name": _NAME,
        "description": "Exact, verified, restorable backups of InfluxDB by time window.",
        "integrations": [
            {
                "integration-name": _NAME,
                "external-doc-url": "https://docs.influxdata.com/influxdb/",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                "integration-name": _NAME,
                "python-modules": [f"{package}.hooks.influxdb", f"{package}.hooks.repository"],
            }
        ],
        "operators": [
            {
                "integration-name": _NAME,
                "python-modules": [
                    f"{package}.operators.{module}" for module in ("export", "verify", "restore", "drill")
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _NAME,
                "python-modules": [f"{package}.sensors.settled", f"{package}.sensors.fresh"],
            }
        ],
        "connection-types": [
            {
                "connection-type": "influxdb_backup",
                "hook-class-name": f"{package}.hooks.influxdb.InfluxdbBackupHook",
                "hook-name": _NAME,
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {"login": "User (1.x)", "password": "Password (1.x), or token (2.x)"},
                    "placeholders": {"host": "influxdb.example.com", "port": "8086"},
                },
                "conn-fields": _FORM,
            }
        ],
    }
