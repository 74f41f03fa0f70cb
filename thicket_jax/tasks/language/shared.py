"""What the language-model tasks share: a checkpoint, prompts, decoding and grading → a task.

A task says what its rows are, what is asked and how an answer is graded (`Spec`); everything else
is here. Shapes: n experts, B items, C chunks, R rows side by side, P prompt tokens, T new tokens.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import numpy as np

from thicket_jax.ensembles.combine import combine_rules
from thicket_jax.errors import ArgumentError, DataError, ScoreError, check_count
from thicket_jax.experts.leaves import check_useful_rank
from thicket_jax.experts.low_rank import LowRank
from thicket_jax.mapping.devices import memory_bytes
from thicket_jax.scoring.metrics import metric
from thicket_jax.scoring.scores import TIMED_OUT, Graded
from thicket_jax.search.problem import Answering, Problem
from thicket_jax.tasks import task
from thicket_jax.text import pretrained, prompts
from thicket_jax.text.cache import cache_bytes
from thicket_jax.text.config import DTYPES, Config, read_config
from thicket_jax.text.data.rows import Row
from thicket_jax.text.data.splits import Split, open_split
from thicket_jax.text.decode import decoder, sampling
from thicket_jax.text.grading import Graders
from thicket_jax.text.model import abstract
from thicket_jax.text.pretrained import Pretrained

_KS = (1, 10, 50)
_WORKERS_PER_CORE = 8
_TEMPERATURES = 1e-3, 1e3
_CPU_CACHE_BYTES = 2**24  # of keys and values side by side; more rows only leave the cache
_ACCELERATOR_SHARE = 0.25  # of its memory for one expert's keys and values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(task.Options):
    """The options of every language-model task."""

    model: str = ""
    """Checkpoint folder (Llama, Mistral, Qwen2, Qwen3, OLMo-2, OLMo-3) with its tokenizer."""
    data: str | None = None
    """Data file, or folder with train and test files; JSONL, JSON, CSV or parquet."""
    test_data: str | None = None
    """Test file, where it is not in the folder --data."""
    num: int = 500
    """Number of experts to sample (N)."""
    k: tuple[int, ...] | None = None  # type: ignore[assignment]  # `resolved` fills it in
    """Ensemble sizes to report; default 1, 10 and 50, as far as there are experts."""
    sigma: tuple[float, ...] = (0.001, 0.002, 0.003)
    """Standard deviations of the perturbation; several are dealt out in turn."""
    train_items: int = 200
    """Items that score the experts."""
    test_items: int | None = None  # type: ignore[assignment]  # `resolved` fills it in
    """Held-out items; default as many as training items."""
    precision: str = "auto"
    """float32, bfloat16 or float16; auto is the checkpoint's own."""
    max_tokens: int = 256
    """Tokens that are generated at most for an answer."""
    chat: bool | None = None
    """Apply the tokenizer's chat template; default: if it has one."""
    system: str | None = None
    """System message, or a paragraph before the prompt where no template is applied."""
    rows: int = 0
    """Prompts decoded side by side for each expert; 0 fits them to the memory."""
    sample_temperature: float = 0.7
    """Temperature of the sampled base, the self-consistency baseline."""
    sample_top_p: float = 1.0
    """Probability that the sampled base's tokens are drawn from."""
    grade_workers: int = 0
    """Processes that grade answers; 0 is one per core, 8 at most."""
    grade_seconds: float = 10.0
    """Seconds that grading one answer may take."""
    allow_test_selection: bool = False
    """Allow experts to be selected on a published test set; the report says so."""

    PRECISIONS: ClassVar[tuple[str, ...]] = ("auto", *DTYPES)

    def resolved(self) -> Self:
        """Returns the options with paths made absolute and defaults filled in.

        Raises:
          ArgumentError: an option that cannot work, whatever the model and the data are.
          DataError: the model has no config.json that can be read, where it says the dtype.
        """
        if not self.model:
            raise ArgumentError(
                "--model is missing; give the folder of a checkpoint: config.json, safetensors and "
                "tokenizer files"
            )
        k = self.k
        if k is None:
            k = tuple(size for size in _KS if size <= self.num) or (1,)
        found = dataclasses.replace(
            self,
            model=absolute(self.model),
            data=None if self.data is None else absolute(self.data),
            test_data=None if self.test_data is None else absolute(self.test_data),
            k=k,
            test_items=self.train_items if self.test_items is None else self.test_items,
        )
        found.check()
        if found.rounded is None and found.noise == LowRank.name:
            auto = found.precision == "auto"
            dtype = read_config(found.model).dtype if auto else found.precision
            if dtype != "float32":
                found = dataclasses.replace(found, rounded=False)
        return found

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        check_count("max_tokens", self.max_tokens)
        for name in ("rows", "grade_workers"):
            if getattr(self, name) < 0:
                raise ArgumentError(f"{name}={getattr(self, name)} must be 0 or more")
        most = _WORKERS_PER_CORE * task.cores()
        if self.grade_workers > most:
            raise ArgumentError(
                f"grade_workers={self.grade_workers} is more than {most}, {_WORKERS_PER_CORE} for "
                "each core here"
            )
        low, high = _TEMPERATURES
        if not low <= self.sample_temperature <= high:
            raise ArgumentError(
                f"sample_temperature={self.sample_temperature} must be {low} to {high}"
            )
        task.check_seconds("grade_seconds", self.grade_seconds)
        if not float(np.finfo(np.float32).tiny) <= self.sample_top_p <= 1:
            raise ArgumentError(
                f"sample_top_p={self.sample_top_p} must be above 0 (in float32), and 1 at most"
            )

    def unread(self) -> dict[str, str]:
        """Returns which options nothing reads beside the others, and why."""
        found = super().unread()
        if self.data is None:
            names = ("test_data", "allow_test_selection")
            found |= dict.fromkeys(names, "belongs to --data")
        return found


def absolute(path: str) -> str:
    """Returns a path that stays right when a run is resumed from another folder."""
    return str(pathlib.Path(path).expanduser().resolve())


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a language-model task is.

    Attributes:
      name: of the task.
      grader: `module:function`, see `thicket_jax.text.graders`.
      prompt: a row → what is asked, a text or the messages of a conversation; a `DataError` for
        a row that cannot be asked.
      item: a row → what the grader reads, JSON values; a `DataError` for one that it cannot read.
      notes: sentences that the report must say.
    """

    name: str
    grader: str
    prompt: Callable[[Mapping[str, Any]], str | prompts.Messages]
    item: Callable[[Mapping[str, Any]], dict[str, Any]]
    notes: tuple[str, ...] = ()


def build(options: Options, spec: Spec, split: Split, tell: task.Tell = task.quiet) -> task.Task:
    """Loads the model, lays the prompts out and starts the graders.

    Raises:
      DataError: the checkpoint, the tokenizer or the data cannot be used; one line says why.
      ArgumentError: an option that cannot work.
    """
    config = read_config(options.model)
    dtype = config.dtype if options.precision == "auto" else options.precision
    check_useful_rank(abstract(config, dtype), options.law())
    tokenizer = prompts.open_tokenizer(options.model)
    ends = dict.fromkeys((*config.eos_ids, *tokenizer.eos_ids))
    if any(end >= config.vocab_size for end in ends):
        raise DataError(
            f"{options.model}: its tokenizer's end token is {max(ends)}, but config.json has "
            f"{config.vocab_size} tokens; are they of one checkpoint?"
        )
    config = dataclasses.replace(config, eos_ids=tuple(ends))
    rows = [*split.train, *split.test]
    asked, items = _read(rows, len(split.train), spec, options)
    encoded = [prompts.render(tokenizer, text, options.system, options.chat) for text in asked]
    # Before the weights are read, which may take minutes.
    _check_fit(options, config, encoded)
    tell(f"loading the weights of {pathlib.Path(options.model).name}")
    model = pretrained.load(options.model, options.precision)
    model = dataclasses.replace(model, config=config)
    width = prompts.bucket(max(map(len, encoded)))
    count = len(split.train)
    side_by_side = _rows(options, model, width, count)
    layout = {"rows": side_by_side, "chunks": -(-count // side_by_side), "width": width}
    pad = tokenizer.pad_id if tokenizer.pad_id < config.vocab_size else 0  # what it is is masked
    batches = _batches(encoded, count, layout, pad)
    graded = {"items": items_digest(spec.grader, items)}
    greedy = {**graded, **sampling(options.seed)}
    drawn = {
        **graded,
        **sampling(options.seed, options.sample_temperature, options.sample_top_p),
    }
    sizes = [count] + [int((batch["row"] >= 0).sum()) for batch in batches[1:]]
    graders = Graders(
        spec.grader,
        items,
        workers=options.grade_workers or None,
        timeout=options.grade_seconds,
    )
    read = _Reader(graders, tokenizer, config.eos_ids, tuple(sizes))
    template = options.chat or (options.chat is None and tokenizer.has_chat_template)
    problem = Problem(
        score_fn=decoder(config, options.max_tokens, model.dtype),
        params=model.params,
        train={**batches[0], **greedy},
        metric=metric("accuracy"),
        combines=combine_rules("majority_vote", "weighted_vote"),
        grade=lambda outputs: read(0, outputs),
        with_id=True,
        answering=Answering(
            pieces=tuple({**batch, **greedy} for batch in batches[1:]),
            sampled=tuple({**batch, **drawn} for batch in batches[1:]),
            read=lambda piece, outputs: read(piece + 1, outputs),
            classes=graders.classes,
            sizes=tuple(sizes[1:]),
        ),
        layout=prompts.LAYOUT,
    )
    return task.Task(
        name=spec.name,
        model=model.description,
        problem=problem,
        notes=(*spec.notes, *split.notes),
        provenance={
            "data": split.provenance,
            "grader": spec.grader,
            "chat_template": bool(template),
            "prompt_tokens": width,
            "decoded_side_by_side": side_by_side,
            "sampling": {
                "temperature": options.sample_temperature,
                "top_p": options.sample_top_p,
            },
        },
        close=graders.close,
    )


def read_split(options: Options, needed: Sequence[Any], **rules: Any) -> Split:
    """Reads the data that --data and --test-data name; `rules` are those of `open_split`.

    Raises:
      ArgumentError: no data was named.
      DataError: it is not what the task reads.
    """
    if options.data is None:
        columns = ", ".join(" or ".join((c,) if isinstance(c, str) else c) for c in needed)
        raise ArgumentError(
            f"--data is missing; give a file (JSONL, JSON, CSV, parquet) with {columns}, or a "
            "folder with a train and a test file"
        )
    assert options.test_items is not None
    return open_split(
        options.data,
        options.test_data,
        needed=needed,
        train_items=options.train_items,
        test_items=options.test_items,
        seed=options.seed,
        allow_test_selection=options.allow_test_selection,
        **rules,
    )


def items_digest(grader: str, items: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns uint8 [32], a digest of what texts are graded against.

    It is a leaf of every batch that no program reads: a run's fingerprint changes with it, and a
    run with other right answers is not resumed.
    """
    said = json.dumps([grader, items], sort_keys=True, separators=(",", ":"))
    return np.frombuffer(hashlib.sha256(said.encode()).digest(), np.uint8)


def either(row: Mapping[str, Any], *names: str) -> Any:
    """Returns the value of the first of these columns that a row has; None if it has none."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def question(row: Mapping[str, Any], *names: str) -> str | prompts.Messages:
    """Returns what the first of these columns asks: a text, or the messages of a conversation.

    Raises:
      DataError: it is neither; see `prompts.messages`.
    """
    return prompts.question(either(row, *names), _first(row, *names))


def text(row: Mapping[str, Any], *names: str) -> str:
    """Returns the text, or the number as text, that the first of these columns has.

    Raises:
      DataError: it has something else, such as a list of messages.
    """
    return as_text(either(row, *names), _first(row, *names))


def as_text(value: Any, name: str) -> str:
    """Returns a value that is text, or a number, as text; anything else is a `DataError`."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"its {name} {value!r:.80} is no text")
    return str(value)


def _first(row: Mapping[str, Any], *names: str) -> str:
    return next((name for name in names if row.get(name) is not None), names[0])


def save(options: Options, params: Any, to: pathlib.Path, notes: Mapping[str, Any]) -> pathlib.Path:
    """Writes parameters as a checkpoint folder that transformers opens."""
    return pretrained.save(options.model, to, params, notes)


def base_params(options: Options) -> Any:
    """Returns the checkpoint's parameters alone, which is all that an export needs."""
    return pretrained.load(options.model, options.precision).params


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Generated tokens of a batch → answers and outcomes, in the graders' processes."""

    graders: Graders
    tokenizer: prompts.Tokenizer
    eos_ids: tuple[int, ...]
    sizes: tuple[int, ...]

    def __call__(self, batch: int, outputs: Mapping[str, np.ndarray]) -> Graded:
        first, count = sum(self.sizes[:batch]), self.sizes[batch]
        tokens = prompts.unlay(np.asarray(outputs["tokens"]), count)
        finite = prompts.unlay(np.asarray(outputs["finite"]), count)
        texts, lengths = prompts.texts(self.tokenizer, tokens, self.eos_ids)
        n = len(texts)
        pairs = [(first + j, texts[i, j]) for i in range(n) for j in range(count)]
        try:
            outcomes = self.graders.grade(pairs)
        except ScoreError as error:
            numbered = f"items are numbered from 0, the {self.sizes[0]} training items first"
            raise ScoreError(f"{error}; {numbered}") from error
        items = np.array([outcome.score for outcome in outcomes], np.float32).reshape(n, count)
        answers = np.empty(n * count, object)
        answers[:] = [outcome.answer for outcome in outcomes]
        columns = {
            name: np.array([o.columns[name] for o in outcomes], np.float32).reshape(n, count)
            for name in outcomes[0].columns
        }
        late = np.array([outcome.timed_out for outcome in outcomes], np.float32).reshape(n, count)
        if late.any():  # runs without time-outs have no such column
            columns[TIMED_OUT] = late
        return Graded(
            items=np.where(finite, items, np.float32(np.nan)),
            answers=answers.reshape(n, count),
            columns={**columns, "tokens": lengths.astype(np.float32)},
            texts=texts,
        )


def _read(
    rows: Sequence[Row], train: int, spec: Spec, options: Options
) -> tuple[list[str | prompts.Messages], list[dict[str, Any]]]:
    """What is asked, and what the grader reads, of every row."""
    asked: list[str | prompts.Messages] = []
    items: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        try:
            asked.append(spec.prompt(row))
            items.append(spec.item(row))
        except DataError as error:
            shown = json.dumps(row, ensure_ascii=False)
            file = options.data if number < train else options.test_data or options.data
            place = f" of {file}" if file else ""
            raise DataError(f"{error}; mend the row{place} that begins {shown:.100}") from error
    return asked, items


def _check_fit(options: Options, config: Config, encoded: Sequence[Sequence[int]]) -> None:
    """Raises `DataError` unless the model has the prompts' tokens, and room for them."""
    prompts.check_lengths(encoded, options.max_tokens, config.max_positions)
    largest = max(map(max, encoded))
    if largest >= config.vocab_size:
        raise DataError(
            f"{options.model}: its tokenizer gives token {largest}, but config.json has "
            f"{config.vocab_size} tokens; are they of one checkpoint?"
        )


def _rows(options: Options, model: Pretrained, width: int, count: int) -> int:
    """Chooses how many prompts are decoded side by side, alike on every machine of one kind."""
    if options.rows:
        return min(options.rows, count)
    device = jax.local_devices()[0]
    room = _CPU_CACHE_BYTES
    if device.platform != "cpu":
        room = int(memory_bytes(device) * _ACCELERATOR_SHARE)
    one = cache_bytes(model.config, 1, width + options.max_tokens, model.dtype)
    most = max(32 if device.platform == "cpu" else 1, room // one)
    chunks = -(-count // most)
    return -(-count // chunks)


def _batches(
    encoded: Sequence[Sequence[int]], count: int, layout: Mapping[str, int], pad: int
) -> list[dict[str, np.ndarray]]:
    """Lays out the training prompts, then the test prompts, in batches of one shape."""
    size = layout["rows"] * layout["chunks"]
    edges = [0, count, *range(count + size, len(encoded), size), len(encoded)]
    return [
        prompts.lay_out(encoded[begin:end], pad_id=pad, first=begin, **layout)
        for begin, end in itertools.pairwise(edges)
    ]
