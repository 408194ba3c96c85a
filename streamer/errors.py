"""The error tree. Each error tells an operator what is wrong and what to do next; the command line prints it and exits.

StreamerError                 anything that a person can act on          exit 1
├── SettingsError             settings that are missing, wrong or fight  exit 2
├── BrokerError               no broker, or one that refuses us          exit 3
│   └── TopicsError           topics missing, or not as they have to be  exit 4
├── DataDirError              data directory full, read-only or in use   exit 5
├── StateError                stored state that this version can't use   exit 6
└── RetentionError            events deleted before they were read       exit 7
"""


class StreamerError(Exception):
    """Something that a person can act on: the message says what, where and the next step."""

    exit_code = 1


class SettingsError(StreamerError):
    """Settings are wrong. All mistakes are listed at once: mend them and start again."""

    exit_code = 2


class BrokerError(StreamerError):
    """Kafka cannot be reached or refuses us. Check STREAMER_BROKERS and the network; start again when it is there."""

    exit_code = 3


class TopicsError(BrokerError):
    """Topics are missing or have the wrong shape. `streamer topics create` makes what is missing."""

    exit_code = 4


class DataDirError(StreamerError):
    """The data directory cannot be used: full, read-only, or held by another worker."""

    exit_code = 5


class StateError(StreamerError):
    """Stored state cannot be read by this version. Upgrade the worker, or restore from the changelog."""

    exit_code = 6


class RetentionError(StreamerError):
    """Kafka's retention deleted events before they were read. Raise the topic's retention.ms; `streamer reset` goes on
    without them.
    """

    exit_code = 7
