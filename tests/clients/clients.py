"""The official Python clients, unmodified, against a running host.

Nothing here depends on what the embedded model says, only on what a client can rely on: shapes, streams that say what the
whole answer says, schemas that hold, errors of the right class. Prints one line per check and the counts at the end.
"""

import json
import sys
import traceback

import anthropic
import ollama
import openai

BASE = sys.argv[1]
MODEL = "default"
oai = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0)
ant = anthropic.Anthropic(base_url=BASE, api_key="none", max_retries=0)
oll = ollama.Client(host=BASE)

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def raises(kind, call):
    """The error of this class that the call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


ASK = [{"role": "user", "content": "Summarize: The host owns the model. Apps get tokens from it."}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 16}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
OPENAI_TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": WEATHER}}


def holds_weather(arguments):
    assert set(arguments) == {"city", "days"}, arguments
    assert isinstance(arguments["city"], str) and 1 <= arguments["days"] <= 9, arguments


# --- OpenAI ----------------------------------------------------------------------------------------------------------


@check
def openai_lists_and_retrieves_models():
    models = list(oai.models.list())
    assert models and all(model.object == "model" for model in models), models
    one = oai.models.retrieve(models[0].id)
    assert one.id == models[0].id
    raises(openai.NotFoundError, lambda: oai.models.retrieve("no-such-model"))


@check
def openai_chat_streams_what_it_answers():
    greedy = dict(model=MODEL, messages=ASK, temperature=0, seed=1, max_tokens=40)
    whole = oai.chat.completions.create(**greedy)
    text = whole.choices[0].message.content
    assert whole.model and whole.model != MODEL, whole.model
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    pieces, usage, finish = [], None, None
    for chunk in oai.chat.completions.create(**greedy, stream=True, stream_options={"include_usage": True}):
        assert chunk.object == "chat.completion.chunk"
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            finish = choice.finish_reason or finish
    assert "".join(pieces) == text, (pieces, text)
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert finish == whole.choices[0].finish_reason
    assert usage.prompt_tokens_details.cached_tokens > 0, usage


@check
def openai_stream_helper_accumulates():
    with oai.chat.completions.stream(model=MODEL, messages=ASK, max_tokens=20, temperature=0) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content


@check
def openai_sampling_parameters_are_taken():
    answer = oai.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=12, n=2, seed=7, temperature=0.9, top_p=0.9, presence_penalty=0.5,
        frequency_penalty=0.5, logit_bias={"300": -100}, stop=["\n\n"], logprobs=True, top_logprobs=3, user="somebody",
    )
    assert len(answer.choices) == 2
    for choice in answer.choices:
        for token in choice.logprobs.content:
            assert token.logprob <= 0 and len(token.top_logprobs) == 3
    again = oai.chat.completions.create(model=MODEL, messages=ASK, max_tokens=12, seed=7, temperature=0.9)
    once = oai.chat.completions.create(model=MODEL, messages=ASK, max_tokens=12, seed=7, temperature=0.9)
    assert again.choices[0].message.content == once.choices[0].message.content


@check
def openai_required_tool_is_called_whole_and_streamed():
    ask = dict(
        model=MODEL, messages=[{"role": "user", "content": "What is the weather in Oslo for 3 days?"}],
        tools=[OPENAI_TOOL], tool_choice="required", max_tokens=200, temperature=0,
    )
    whole = oai.chat.completions.create(**ask)
    call = whole.choices[0].message.tool_calls[0]
    assert whole.choices[0].finish_reason == "tool_calls" and call.function.name == "weather"
    holds_weather(json.loads(call.function.arguments))
    names, arguments, finish = "", "", None
    for chunk in oai.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for delta in choice.delta.tool_calls or []:
                assert delta.index == 0
                names += delta.function.name or ""
                arguments += delta.function.arguments or ""
    assert (names, finish) == ("weather", "tool_calls")
    assert json.loads(arguments) == json.loads(call.function.arguments)
    # The result goes back; the conversation goes on.
    history = ask["messages"] + [
        whole.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 20 degrees."},
    ]
    after = oai.chat.completions.create(model=MODEL, messages=history, tools=[OPENAI_TOOL], max_tokens=30)
    assert after.choices[0].message is not None
    none = oai.chat.completions.create(**{**ask, "tool_choice": "none", "max_tokens": 20})
    assert not none.choices[0].message.tool_calls


@check
def openai_schema_holds():
    answer = oai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Weather in Oslo, 3 days, as JSON."}], max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}},
    )
    holds_weather(json.loads(answer.choices[0].message.content))
    answer = oai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Say hello as JSON."}], max_tokens=300, temperature=0,
        response_format={"type": "json_object"},
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    error = raises(
        openai.BadRequestError,
        lambda: oai.chat.completions.create(model=MODEL, messages=ASK, response_format=bad),
    )
    assert "schema" in str(error), error


@check
def openai_errors_are_of_the_right_class():
    missing = raises(openai.NotFoundError, lambda: oai.chat.completions.create(model="no-such-model", messages=ASK))
    assert missing.code == "model_not_found", missing.code
    long = [{"role": "user", "content": "word " * 60000}]
    over = raises(openai.BadRequestError, lambda: oai.chat.completions.create(model=MODEL, messages=long))
    assert over.code == "context_length_exceeded", over.code
    raises(openai.BadRequestError, lambda: oai.chat.completions.create(model=MODEL, messages=ASK, temperature=99))
    raises(openai.BadRequestError, lambda: oai.chat.completions.create(model=MODEL, messages=[]))


@check
def openai_completions_stream_and_stop():
    ask = dict(model=MODEL, prompt="one, two, three,", max_tokens=24, temperature=0)
    whole = oai.completions.create(**ask)
    pieces = [chunk.choices[0].text for chunk in oai.completions.create(**ask, stream=True) if chunk.choices]
    assert "".join(pieces) == whole.choices[0].text
    words = whole.choices[0].text.split()
    if words:
        stopped = oai.completions.create(**ask, stop=[words[-1]])
        assert words[-1] not in stopped.choices[0].text


@check
def openai_responses_keep_state():
    first = oai.responses.create(model=MODEL, input="Say hello.", max_output_tokens=24)
    assert first.status in ("completed", "incomplete") and first.id.startswith("resp_")
    assert first.output_text is not None
    second = oai.responses.create(
        model=MODEL, input="And again.", previous_response_id=first.id, max_output_tokens=24
    )
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    assert oai.responses.retrieve(first.id).output_text == first.output_text
    with oai.responses.stream(model=MODEL, input="Say hello.", max_output_tokens=24) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete"), kinds
    assert final.output_text is not None
    oai.responses.delete(first.id)
    raises(openai.NotFoundError, lambda: oai.responses.retrieve(first.id))


@check
def openai_embeddings_of_a_chat_model_are_refused():
    raises(openai.BadRequestError, lambda: oai.embeddings.create(model=MODEL, input="hello"))


# --- Anthropic -------------------------------------------------------------------------------------------------------

ANTHROPIC_TOOL = {"name": "weather", "description": "The weather.", "input_schema": WEATHER}


@check
def anthropic_messages_stream_what_they_answer():
    # The client no longer names the temperature; the API still takes it.
    ask = dict(model=MODEL, max_tokens=40, system="Be brief.", messages=ASK, extra_body={"temperature": 0})
    whole = ant.messages.create(**ask)
    assert whole.type == "message" and whole.role == "assistant"
    assert whole.stop_reason in ("end_turn", "max_tokens") and whole.usage.output_tokens > 0
    with ant.messages.stream(**ask) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "".join(block.text for block in whole.content if block.type == "text")
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


@check
def anthropic_tools_are_called():
    ask = dict(
        model=MODEL, max_tokens=200, tools=[ANTHROPIC_TOOL], tool_choice={"type": "any"}, extra_body={"temperature": 0},
        messages=[{"role": "user", "content": "What is the weather in Oslo for 3 days?"}],
    )
    whole = ant.messages.create(**ask)
    call = next(block for block in whole.content if block.type == "tool_use")
    assert whole.stop_reason == "tool_use" and call.name == "weather"
    holds_weather(call.input)
    with ant.messages.stream(**ask) as stream:
        final = stream.get_final_message()
    assert next(block for block in final.content if block.type == "tool_use").input == call.input
    after = ant.messages.create(
        model=MODEL, max_tokens=30, tools=[ANTHROPIC_TOOL],
        messages=ask["messages"] + [
            {"role": "assistant", "content": [block.model_dump() for block in whole.content]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny."}]},
        ],
    )
    assert after.type == "message"


@check
def anthropic_counts_tokens_and_errs():
    count = ant.messages.count_tokens(model=MODEL, messages=ASK)
    whole = ant.messages.create(model=MODEL, max_tokens=1, messages=ASK)
    counted = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert count.input_tokens == counted, (count, whole.usage)
    raises(anthropic.NotFoundError, lambda: ant.messages.create(model="no-such", max_tokens=1, messages=ASK))
    long = [{"role": "user", "content": "word " * 60000}]
    raises(anthropic.BadRequestError, lambda: ant.messages.create(model=MODEL, max_tokens=1, messages=long))
    assert ant.messages.create(model=MODEL, max_tokens=60, messages=ASK, stop_sequences=["e"]).stop_reason


# --- Ollama ----------------------------------------------------------------------------------------------------------


@check
def ollama_lists_shows_and_tells_what_runs():
    models = oll.list().models
    assert models and models[0].digest
    shown = oll.show(models[0].model)
    assert shown.details.family and shown.modelinfo
    oll.generate(model=MODEL, prompt="Hi", options={"num_predict": 1})
    assert oll.ps().models
    assert raises(ollama.ResponseError, lambda: oll.show("no-such-model")).status_code == 404


@check
def ollama_chat_streams_what_it_answers():
    ask = dict(model=MODEL, messages=ASK, options={"temperature": 0, "seed": 1, "num_predict": 40})
    whole = oll.chat(**ask)
    assert whole.done and whole.message.role == "assistant" and whole.eval_count > 0
    parts = list(oll.chat(**ask, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert parts[-1].done and parts[-1].eval_count == whole.eval_count


@check
def ollama_generate_tools_and_format():
    text = oll.generate(model=MODEL, prompt="Say hello.", options={"num_predict": 16, "temperature": 0}).response
    parts = oll.generate(model=MODEL, prompt="Say hello.", options={"num_predict": 16, "temperature": 0}, stream=True)
    assert "".join(part.response for part in parts) == text
    answer = oll.chat(
        model=MODEL, messages=[{"role": "user", "content": "Weather in Oslo, 3 days, as JSON."}], format=WEATHER,
        options={"num_predict": 200},
    )
    holds_weather(json.loads(answer.message.content))
    oll.chat(
        model=MODEL, messages=[{"role": "user", "content": "What is the weather in Oslo?"}], tools=[OPENAI_TOOL],
        options={"num_predict": 60},
    )
    assert raises(ollama.ResponseError, lambda: oll.chat(model="no-such", messages=ASK)).status_code == 404


def main():
    failed = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            function()
            print(f"ok    python  {name}", flush=True)
        except Exception:  # noqa: BLE001: a check may fail in any way
            failed += 1
            print(f"FAIL  python  {name}", flush=True)
            traceback.print_exc()
    print(f"python: {len(CHECKS) - failed} passed, {failed} failed")
    return failed


sys.exit(1 if main() else 0)
