"""Sound, uploaded by OpenAI's SDK through the gateway, heard by real vLLM with a tiny Whisper."""

import io
import math
import struct
import wave

import openai
import pytest

from backends.vllm.recipes import VllmRecipe
from tests.e2e import install
from tests.e2e.fleet import configured_gateway, running, vllm_server

WHISPER = VllmRecipe(
    name="whisper",
    hf_model="openai/whisper-tiny",
    context_tokens=128,
    capabilities=(),
    gpu_memory_gib=1,
    cpu_kv_cache_gib=1,
)
HERTZ = 16_000


@pytest.fixture(scope="module")
def hearing(tmp_path_factory):
    """A gateway before a Whisper and nothing else."""
    folder = tmp_path_factory.mktemp("whisper")
    server = vllm_server(WHISPER, install.vllm_python(), install.whisper().parent, folder)
    server.env["PYTHONPATH"] = str(install.sound_packages())
    served = {"name": WHISPER.name, "profile": "phi-3-mini", "context": WHISPER.context_tokens}
    gateway = configured_gateway({"models": [served | {"backends": [{"url": server.url}]}]}, folder)
    with running([server, gateway], at_once=1):
        yield gateway


@pytest.fixture
def sound():
    """A second of a tone."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(HERTZ)
        tone = (int(8000 * math.sin(at / 10)) for at in range(HERTZ))
        written.writeframes(b"".join(struct.pack("<h", level) for level in tone))
    return ("tone.wav", file.getvalue(), "audio/wav")


# Translations are deprecated in the SDK, not in vLLM.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", ["transcriptions", "translations"])
def test_an_upload_is_heard(hearing, sound, kind):
    limit = {"max_completion_tokens": 8}  # random weights go on until they are cut off
    with openai.OpenAI(base_url=f"{hearing.url}/v1", api_key="unused") as sdk:
        asked = getattr(sdk.audio, kind).with_raw_response.create
        got = asked(model=WHISPER.name, file=sound, extra_body=limit)
    assert got.headers["x-joulegate-model"] == WHISPER.name
    assert got.parse().text.strip()


def test_a_transcription_is_streamed(hearing, sound):
    with openai.OpenAI(base_url=f"{hearing.url}/v1", api_key="unused") as sdk:
        stream = sdk.audio.transcriptions.create(
            model=WHISPER.name,
            file=sound,
            stream=True,
            extra_body={"max_completion_tokens": 8},
        )
        assert list(stream)


def test_what_is_no_sound_is_vllms_own_refusal(hearing):
    with (
        openai.OpenAI(base_url=f"{hearing.url}/v1", api_key="unused") as sdk,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        sdk.audio.transcriptions.create(model=WHISPER.name, file=("a.wav", b"no sound"))
    assert caught.value.type == "invalid_request_error"
