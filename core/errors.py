"""What can go wrong, as one tree.

    NearfeedError
    ├── InputError          the caller can fix it; the same call fails again
    │   ├── SettingsError       a setting is unknown, missing or malformed
    │   ├── FrameError          a record is not a frame this version can read
    │   └── TooLarge            more was asked than one call may carry
    ├── NotReady            the same call may succeed later
    │   ├── BrokerUnavailable   Kafka did not answer in time
    │   ├── StoreUnavailable    PostgreSQL did not answer in time
    │   ├── Overloaded          the queue is full
    │   └── LeaseExpired        this scorer no longer knows the newest catalogue
    └── ContractError       two parts disagree; a person must act
        ├── ArtefactError       a published model is missing, damaged or of another shape
        ├── OwnershipLost       somebody else owns this partition now
        └── WriterTaken         another process writes the catalogue

Every message says what was found, what was expected, and the next step. Each class names its gRPC
status code (`grpc_status`, by name, so that core need not import grpc) and the exit code that the
command line ends with.
"""


class NearfeedError(Exception):
    """Base of every error this project raises on purpose."""

    grpc_status = "INTERNAL"
    exit_code = 1


class InputError(NearfeedError):
    """The caller can fix it; the same call fails again."""

    grpc_status = "INVALID_ARGUMENT"
    exit_code = 2


class SettingsError(InputError):
    """A setting is unknown, missing or malformed."""


class FrameError(InputError):
    """A record is not a frame this version can read."""


class TooLarge(InputError):
    """More was asked than one call may carry."""

    grpc_status = "RESOURCE_EXHAUSTED"


class NotReady(NearfeedError):
    """The same call may succeed later."""

    grpc_status = "UNAVAILABLE"


class BrokerUnavailable(NotReady):
    """Kafka did not answer in time."""


class StoreUnavailable(NotReady):
    """PostgreSQL did not answer in time."""


class Overloaded(NotReady):
    """The queue is full."""

    grpc_status = "RESOURCE_EXHAUSTED"


class LeaseExpired(NotReady):
    """This scorer no longer knows the newest catalogue."""


class ContractError(NearfeedError):
    """Two parts disagree; a person must act."""

    grpc_status = "FAILED_PRECONDITION"


class ArtefactError(ContractError):
    """A published model is missing, damaged or of another shape."""


class OwnershipLost(ContractError):
    """Somebody else owns this partition now."""


class WriterTaken(ContractError):
    """Another process writes the catalogue."""
