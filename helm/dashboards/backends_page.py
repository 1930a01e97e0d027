"""The page of what serves: backends as the gateway sees them, vLLM itself, devices and meters."""

# ruff: noqa: INP001 - a script's helper

from parts import (
    COUNT,
    HERE,
    JOULES,
    OF,
    PER_SECOND,
    RATE,
    REQUESTS,
    SECONDS,
    SHARE,
    UP,
    WATTS,
    Page,
    Panel,
    Query,
    Row,
    or_zero,
)

_VLLM = f'{HERE}, model_name=~"$model"'
_WHERE = "{{model_name}} {{instance}}"
_BACKEND = "{{model}} {{backend}}"
_METER = f"{{{HERE}}}"


def _rate(metric: str, by: str, of: str = OF) -> str:
    return f"sum by ({by}) (rate({metric}{{{of}}}[{RATE}]))"


def _happening(metric: str) -> Query:
    """Return what there is of each model and reason, or a legend of zeros would fill the panel."""
    happens = f"{_rate(metric, 'model, reason')} > 0"
    return Query(or_zero(happens, _rate(metric, "model")), "{{model}} {{reason}}")


_SEEN = Row(
    "As the gateway sees them",
    [
        Panel(
            "Usable",
            "Whether the backend is sent requests; no while it is ejected.",
            COUNT,
            [Query(f"min by (model, backend) (joulegate_backend_up{{{OF}}})", _BACKEND)],
            "states",
            12,
            UP,
        ),
        Panel(
            "In flight",
            "Requests at each backend now, of all gateways.",
            COUNT,
            [Query(f"sum by (model, backend) (joulegate_backend_inflight{{{OF}}})", _BACKEND)],
            width=12,
        ),
        Panel(
            "Left idle by packing",
            "Usable backends with nothing to do: energy packs requests on the fullest one that is "
            "still quick.",
            COUNT,
            [Query(f"min by (model) (joulegate_backends_idle{{{OF}}})", "{{model}}")],
            width=12,
        ),
        Panel(
            "Reference load",
            "Mean number of others beside a request, at which models' joules are compared.",
            COUNT,
            [Query(f"avg(joulegate_reference_load_requests{{{HERE}}})", "gateways")],
            width=12,
        ),
        Panel(
            "Ejections",
            "Times per second that a backend was given up for a while.",
            PER_SECOND,
            [Query(_rate("joulegate_backend_ejections_total", "model, backend"), _BACKEND)],
        ),
        Panel(
            "Failovers",
            "Further attempts because an earlier one failed, by model and failure.",
            PER_SECOND,
            [_happening("joulegate_retries_total")],
            "stack",
        ),
        Panel(
            "Broken streams",
            "Answers that had begun and ended in an error frame: no failover is possible then.",
            PER_SECOND,
            [_happening("joulegate_streams_broken_total")],
            "stack",
        ),
    ],
)

_ENGINES = Row(
    "vLLM",
    [
        Panel(
            "Running",
            "Requests in vLLM's batch.",
            COUNT,
            [Query(f"vllm:num_requests_running{{{_VLLM}}}", _WHERE)],
        ),
        Panel(
            "Queue",
            "Requests that wait to be taken into the batch.",
            COUNT,
            [Query(f"vllm:num_requests_waiting{{{_VLLM}}}", _WHERE)],
            steps=((None, "green"), (10, "red")),
        ),
        Panel(
            "KV cache in use",
            "Near 100% vLLM preempts requests, and their time and joules grow.",
            SHARE,
            [Query(f"vllm:kv_cache_usage_perc{{{_VLLM}}}", _WHERE)],
            steps=((None, "green"), (0.9, "red")),
        ),
        Panel(
            "Prompt tokens",
            "Tokens prefilled per second.",
            PER_SECOND,
            [Query(f"rate(vllm:prompt_tokens_total{{{_VLLM}}}[{RATE}])", _WHERE)],
        ),
        Panel(
            "Generated tokens",
            "Tokens generated per second.",
            PER_SECOND,
            [Query(f"rate(vllm:generation_tokens_total{{{_VLLM}}}[{RATE}])", _WHERE)],
        ),
        Panel(
            "vLLM's own time to first token, p95",
            "Beside the gateway's on the overview: the difference is failovers and the network.",
            SECONDS,
            [
                Query(
                    "histogram_quantile(0.95, sum by (model_name, le) "
                    f"(rate(vllm:time_to_first_token_seconds_bucket{{{_VLLM}}}[{RATE}])))",
                    "{{model_name}}",
                )
            ],
        ),
    ],
)

_METERS = Row(
    "Devices and meters",
    [
        Panel(
            "Watts by device",
            "What each device's own counter advances by, idle included.",
            WATTS,
            [
                Query(
                    _rate("joulegate_meter_energy_joules_total", "instance, device", HERE),
                    "{{device}}",
                )
            ],
        ),
        Panel(
            "Watts by kind",
            "Settled energy: of requests, idle, and other (tokens that no gateway reported).",
            WATTS,
            [Query(_rate("joulegate_meter_attributed_joules_total", "kind", HERE), "{{kind}}")],
            "stack",
        ),
        Panel(
            "Idle watts",
            "Mean power of the last minute of idle time, by ledger.",
            WATTS,
            [Query(f"joulegate_meter_idle_watts{_METER}", "{{ledger}} {{instance}}")],
        ),
        Panel(
            "Unsettled",
            "Joules counted and not yet attributed; they settle as answers go on.",
            JOULES,
            [Query(f"joulegate_meter_unsettled_joules{_METER}", "{{ledger}} {{instance}}")],
        ),
        Panel(
            "Unaccounted",
            "Joules of a meter's devices that are neither attributed nor unsettled: always 0.",
            JOULES,
            [
                Query(
                    f"namespace_instance:joulegate_meter_unaccounted_joules:abs{_METER}",
                    "{{instance}}",
                )
            ],
            steps=((None, "green"), (0.01, "red")),
        ),
        Panel(
            "Requests not settled",
            "Requests whose joules are not final, by ledger.",
            COUNT,
            [Query(f"joulegate_meter_requests_open{_METER}", "{{ledger}} {{instance}}")],
        ),
        Panel(
            "Meter answers",
            "Whether gateways reach the meter; while not, joules are estimated.",
            COUNT,
            [Query(f"min by (meter) (joulegate_meter_up{_METER})", "{{meter}}")],
            "states",
            6,
            UP,
        ),
        Panel(
            "Counters readable",
            "Whether a meter can read a ledger's counters; while not, joules are estimated.",
            COUNT,
            [
                Query(
                    f"min by (ledger, instance) (joulegate_meter_counter_up{_METER})", "{{ledger}}"
                )
            ],
            "states",
            6,
            UP,
        ),
        Panel(
            "Requests not measured",
            "Per second, of those that a meter should have measured.",
            REQUESTS,
            [Query(_rate("joulegate_unmetered_requests_total", "meter", HERE), "{{meter}}")],
            width=6,
        ),
        Panel(
            "Failed readings",
            "Per second, by device; of a ledger while it has no device.",
            PER_SECOND,
            [
                Query(
                    _rate("joulegate_meter_source_errors_total", "instance, device", HERE),
                    "{{device}}",
                )
            ],
            width=6,
        ),
        Panel(
            "Events dropped",
            "Per second, by ledger: refused for want of room, or of requests whose beginning never "
            "came. Their requests are estimated.",
            PER_SECOND,
            [
                Query(
                    _rate("joulegate_meter_dropped_events_total", "instance, ledger", HERE),
                    "{{ledger}} {{instance}}",
                )
            ],
            width=12,
        ),
        Panel(
            "Refused and disputed",
            "Per second: events of gateways that asked for too much room or are suspended, and "
            "readings by which gateways claimed more tokens than a backend counted.",
            PER_SECOND,
            [
                Query(_rate("joulegate_meter_refused_events_total", "reason", HERE), "{{reason}}"),
                Query(
                    _rate("joulegate_meter_disputes_total", "ledger", HERE), "disputes {{ledger}}"
                ),
            ],
            width=12,
        ),
    ],
)

PAGE = Page(
    "backends",
    "Backends",
    "Backends, vLLM's load, devices and meters. The model is vLLM's where vLLM reports it.",
    (_SEEN, _ENGINES, _METERS),
)
