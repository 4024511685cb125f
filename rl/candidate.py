"""From an update to a version: stage what would be published, judge it, publish it or say why not."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from core.clock import Clock
from core.errors import ContractError
from core.settings import Settings
from core.topics import ACTIVITY, OUTCOMES
from feature_repo.folds.context import FoldContext
from models.artefact import Artefact, load_artefact
from models.export import replace_weights
from models.golden import Golden, save_golden
from models.registry import (
    CATALOG_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    NEIGHBOURS_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    current,
    folder_of,
    publish,
    stage,
)
from models.values import SelectionWeights
from protos.events.v1.outcome_pb2 import Outcome
from protos.registry.v1.manifest_pb2 import GateVerdict, ModelManifest
from rl.dataset import Rollouts, rollouts
from rl.fitted_users import FittedUsers
from rl.gate import Judged, judge, reasons
from rl.log import Log, Span
from rl.rewards import REWARD_VERSION, GlobalTable, load_global_table
from rl.update import UpdateArguments, Updated, UpdateReport, load_weights, update
from rl.user_model import UserModel

USERS_FILE: Final = "users.npz"  # the fitted user model, published with the first version and carried on
REWARDS_FILE: Final = "rewards.npz"  # the frozen global reward table, likewise
READ_TIMEOUT_S: Final = 60.0
_CARRIED: Final = (CATALOG_FILE, TOKENIZER_FILE, NEIGHBOURS_FILE, USERS_FILE, REWARDS_FILE)

logger = logging.getLogger(__name__)


class Learned(NamedTuple):
    """What one turn of learning came to."""

    version: int | None  # published; None = refused
    candidate: Path | None  # where the refused candidate lies; None = published
    verdict: GateVerdict
    judged: Judged
    report: UpdateReport
    outcomes: int
    repeats: int
    dropped: dict[str, int]

    @property
    def lines(self) -> list[str]:
        """What to tell a person."""
        said = f"published as version {self.version}" if self.version else f"refused, left in {self.candidate}"
        return [*reasons(self.verdict), said]


def read_rollouts(
    settings: Settings, serving: Artefact, table: GlobalTable, args: UpdateArguments
) -> tuple[Rollouts, list[Span]]:
    """The outcomes since the serving version was learned, with the contexts behind them, and which ranges that was.

    activity.v1 is read from its beginning, because states are folds of everything; its newest good exposures are
    the supervised examples, those that an earlier version has seen included.

    Raises:
        BrokerUnavailable: Kafka did not give the ranges in time.
    """
    log = Log.connect(settings.kafka, timeout_s=READ_TIMEOUT_S)
    try:
        outcome_spans = _since(serving.manifest, log.spans(OUTCOMES))
        activity_spans = log.spans(ACTIVITY)
        outcomes = [Outcome.FromString(record.value) for record in log.read(outcome_spans) if record.value]
        context = FoldContext(
            serving.catalog,
            serving.manifest.tokenizer_version,
            settings.streams.horizon_s * 1000,
            settings.streams.location_resolution,
        )
        found = rollouts(
            outcomes,
            log.read(activity_spans),
            serving.catalog,
            context,
            table,
            partitions=settings.kafka.activity_partitions,
            max_positives=args.max_positives,
        )
    finally:
        log.close()
    return found, [*outcome_spans, *activity_spans]


def _since(manifest: ModelManifest, spans: Sequence[Span]) -> list[Span]:
    """The spans without what the version was already learned from."""
    learned = {(one.source, one.partition): one.end_offset for one in manifest.data_ranges}
    return [
        span._replace(start=min(span.end, max(span.start, learned.get((span.topic, span.partition), 0))))
        for span in spans
    ]


def stage_candidate(
    home: Path, serving: Artefact, updated: Updated, args: UpdateArguments, spans: Sequence[Span], *, clock: Clock
) -> tuple[Path, ModelManifest]:
    """The updated weights as a staged version with the serving version's catalogue and tokenizer, and its manifest.

    Raises:
        ArtefactError: the graph with the new weights does not answer as torch does.
    """
    source = folder_of(home, serving.manifest.model_version)
    staged = stage(home)
    beams = replace_weights(
        source / MODEL_FILE, staged / MODEL_FILE, updated.generator, serving.golden.batch, serving.catalog.trie
    )
    save_golden(Golden(serving.golden.batch, beams), staged / GOLDEN_FILE)
    torch.save(updated.generator.state_dict(), staged / WEIGHTS_FILE)
    for name in _CARRIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, staged / name)
    manifest = ModelManifest()
    manifest.CopyFrom(serving.manifest)
    for field in ("model_version", "files", "gate", "metrics", "data_ranges"):
        manifest.ClearField(field)
    manifest.parent_version = serving.manifest.model_version
    manifest.created_at.FromMilliseconds(clock.now_ms())
    manifest.training_arguments_json = json.dumps(
        json.loads(serving.manifest.training_arguments_json)
        | {"update": asdict(args), "reward_version": REWARD_VERSION}
    )
    for span in spans:
        manifest.data_ranges.add(
            source=span.topic, partition=span.partition, start_offset=span.start, end_offset=span.end
        )
    for name, value in updated.report._asdict().items():
        if value is not None:
            manifest.metrics[f"update_{name}"] = value
    return staged, manifest


def load_judges(home: Path, serving: Artefact) -> tuple[FittedUsers, GlobalTable]:
    """The user model and the reward table that are published with a version.

    Raises:
        ArtefactError: the version has none, or they belong to another catalogue.
    """
    folder = folder_of(home, serving.manifest.model_version)
    return FittedUsers.load(folder / USERS_FILE, serving.catalog), load_global_table(folder / REWARDS_FILE)


def publish_or_refuse(home: Path, staged: Path, manifest: ModelManifest, judged: Judged) -> int | None:
    """The staged version serves, if the verdict lets it; its number, or None and everything stays as it is.

    Raises:
        ContractError: another version was published since the candidate was made from its parent.
    """
    manifest.gate.CopyFrom(judged.verdict)
    for name, value in (("reward_serving", judged.serving_reward), ("reward_candidate", judged.candidate_reward)):
        if value is not None:
            manifest.metrics[name] = value
    if not judged.verdict.passed:
        return None
    if current(home) != manifest.parent_version:
        raise ContractError(
            f"found version {current(home)} serving, expected {manifest.parent_version} from which this one was "
            "learned; learn again from the version that serves"
        )
    return publish(home, staged, manifest)


def learn(
    settings: Settings,
    args: UpdateArguments,
    *,
    clock: Clock,
    users: UserModel | None = None,
    table: GlobalTable | None = None,
) -> Learned:
    """One turn: read the log, update, stage, judge, and publish or refuse.

    Args:
        users: judges the candidate; the one published with the serving version when absent.
        table: values outcomes; likewise.

    Raises:
        ArtefactError: nothing that can be learned from is published.
        BrokerUnavailable: Kafka did not answer in time.
        InputError: there are too few outcomes to learn from.
    """
    home = settings.registry.home
    serving = load_artefact(home, current(home), threads=1)
    if users is None or table is None:
        published = load_judges(home, serving)
        users, table = users or published[0], table or published[1]
    found, spans = read_rollouts(settings, serving, table, args)
    logger.info(
        "learn.read outcomes=%d repeats=%d dropped=%s requests=%d held_out=%d examples=%d",
        found.outcomes,
        found.repeats,
        found.dropped,
        len(found.batch.user_ids),
        len(found.held_out.user_ids),
        len(found.positives.items),
    )
    folder = folder_of(home, serving.manifest.model_version)
    updated = update(load_weights(folder, serving.manifest), found.batch, found.positives, serving.catalog, args)
    staged, manifest = stage_candidate(home, serving, updated, args, spans, clock=clock)
    judged = judge(
        serving,
        staged,
        manifest,
        found.held_out,
        users,
        table,
        rng=np.random.default_rng(args.seed),
        weights=SelectionWeights.of(settings.scorer),
    )
    version = publish_or_refuse(home, staged, manifest, judged)
    for line in reasons(judged.verdict):
        logger.info("gate %s", line)
    return Learned(
        version,
        None if version else staged,
        judged.verdict,
        judged,
        updated.report,
        found.outcomes,
        found.repeats,
        found.dropped,
    )
