// llama.cpp as a command: logits, greedy continuations and tokens of a GGUF model.
//
// Runs llama.cpp through npm's node-llama-cpp and its prebuilt CPU libraries (setup.sh installs
// them). Raw logits are taken from llama.cpp's own sampler interface before any sampler touches
// them; the log-softmax is done here in double precision, so that nothing underflows and no
// temperature, top-k or penalty can slip in. Non-goals: speed, sampling, chat.
import { readFileSync, writeFileSync, openSync, writeSync, closeSync, mkdtempSync, rmSync, symlinkSync, existsSync, renameSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const HELP = `node driver.mjs COMMAND OPTIONS

  logits     --model M --tokens FILE.json --out FILE.npy [--kv f32|f16] [--flash on|off] [--step] [--first K]
             float32 [n_tokens, n_vocab], natural-log probabilities; row i is the distribution of
             the token that follows position i. The ids are evaluated as given: no BOS is added.
             FILE.json: one array of ids, or an array of such arrays, each evaluated from an empty
             cache (a window of text) and their rows written one after the other.
             --step: one token at a time; otherwise all tokens of a window are one batch.
             --first K: rows of the positions of a window from K on only.
  nll        --model M --tokens FILE.json --first K --out FILE.npy [--kv ...] [--flash ...] [--fast]
             float64 [n]: for every window of FILE.json and its positions K, K+1 .. but the last, the
             log-probability of the token that does follow. Perplexity is exp(-mean).
             --fast: many times faster with a large vocabulary, and too low by some 0.01 %.
  generate   --model M --prompts FILE.json -n N --out FILE.json [--kv ...] [--flash ...]
             FILE.json: an array of prompts, each a string (tokenised with special tokens, BOS
             first if the model asks for one) or an array of ids (taken as they are).
             Out: [{"prompt": [ids], "ids": [ids], "text": "..."}], greedy, stops after an
             end-of-generation token (which is not part of ids).
  tokenize   --model M --strings FILE.json --out FILE.json [--no-special]
             Out: an array of arrays of ids, by llama_tokenize with add_special = false (never a
             BOS or EOS) and parse_special = true (--no-special: false). Text of special tokens
             inside a string becomes those tokens. SentencePiece models put their leading space
             as usual. Only the vocabulary is loaded.
  detokenize --model M --ids FILE.json --out FILE.json [--no-special]
             FILE.json: an array of arrays of ids. Out: an array of strings, by llama_detokenize
             with remove_special = false, unparse_special = true (--no-special: false). Invalid
             UTF-8 comes back as U+FFFD.
  pieces     --model M --out FILE.json
             What llama.cpp says of the vocabulary: {bos, eos, add_bos, add_eos, n_vocab}.
  jobs       FILE.json
             An array of argument arrays, run one after the other in one process; a model is kept
             while the next job uses the same file.

  --kv f32 (default) and --flash off (default) are the settings of the truth; --kv f16 --flash on
  are llama.cpp's own defaults. --threads N: 1 by default (llama.cpp's threads
  spin: several are slow on a busy machine).

Environment: TTX_REFERENCE  where setup.sh installed (default \${TTX_CACHE:-~/.cache/ttx}/reference)
             TTX_REF_ISA    use this build of llama.cpp's CPU kernels and no other: x64, sse42,
                            sandybridge, ivybridge, piledriver, haswell (AVX2), skylakex (AVX-512),
                            cannonlake, cascadelake (VNNI), cooperlake, icelake, zen4, alderlake,
                            sapphirerapids (AMX). Without it llama.cpp takes the best for this CPU.
                            A build that this CPU cannot run is an error.
             TTX_REF_LOG    set: llama.cpp's whole log goes to stderr
`;

const ref = process.env.TTX_REFERENCE ?? path.join(process.env.TTX_CACHE ?? path.join(process.env.HOME, ".cache/ttx"), "reference");
const requireRef = createRequire(path.join(ref, "package.json"));

function fail(message) {
    process.stderr.write([...log, `driver: ${message}\n`].join("\n"));
    process.exit(1);
}

// The prebuilt package has one shared library per ISA and llama.cpp loads the best one of a folder.
// To force one, a folder that has only that library is loaded first.
function forceIsa(isa) {
    const bins = path.join(ref, "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64");
    const name = `libggml-cpu-${isa}.so`;
    if (!existsSync(path.join(bins, name)))
        fail(`TTX_REF_ISA=${isa}: no ${name} in ${bins}`);
    const dir = mkdtempSync(path.join(tmpdir(), "ttx-isa-"));
    symlinkSync(path.join(bins, name), path.join(dir, name));
    const bindings = requireRef(path.join(bins, "llama-addon.node"));
    bindings.loadBackends(dir);
    rmSync(dir, { recursive: true });
    if (bindings.getGpuType() == null)
        fail(`TTX_REF_ISA=${isa}: this CPU cannot run it`);
}

const WANT_LOGITS = { generateNext: { logits: true } };

let llama = null;
const log = []; // what llama.cpp said; shown if something fails
let loaded = { key: null, model: null };

async function getModel(file, vocabOnly = false) {
    const key = `${file} ${vocabOnly}`;
    if (loaded.key === key)
        return loaded.model;
    await loaded.model?.dispose();
    if (llama == null) {
        if (process.env.TTX_REF_ISA)
            forceIsa(process.env.TTX_REF_ISA);
        const { getLlama, LlamaLogLevel } = await import(requireRef.resolve("node-llama-cpp"));
        const logger = (_level, message) => (process.env.TTX_REF_LOG ? process.stderr.write(message.trimEnd() + "\n") : log.push(message.trimEnd()));
        llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logger,
            logLevel: process.env.TTX_REF_LOG ? LlamaLogLevel.debug : LlamaLogLevel.error });
    }
    const model = await llama.loadModel({ modelPath: file, vocabOnly, gpuLayers: 0, ignoreMemorySafetyChecks: true });
    loaded = { key, model };
    return model;
}

// A context for n tokens. Where all logits of a position were asked for, they go to onRow(Float64Array
// of n_vocab).
async function openSequence(model, n, opt, onRow = null) {
    const type = opt.kv.toUpperCase();
    if (!["F32", "F16"].includes(type))
        fail(`--kv ${opt.kv}: expected f32 or f16`);
    const context = await model.createContext({ contextSize: n + 8, batchSize: n + 8, sequences: 1,
        threads: { ideal: opt.threads, min: opt.threads }, flashAttention: opt.flash === "on",
        experimentalKvCacheKeyType: type, experimentalKvCacheValueType: type,
        ignoreMemorySafetyChecks: true });
    if (onRow == null)
        return { context, sequence: context.getSequence() };
    // Take the flat [id, logit, ...] array here: the public API would build a Map of it per position.
    const native = context._ctx;
    const sample = native.sampleToken.bind(native);
    const nVocab = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
    const row = new Float64Array(nVocab);
    const tap = async (...args) => {
        const result = await sample(...args);
        const flat = result[3];
        if (flat != null) {
            if (flat.length !== 2 * nVocab)
                fail(`llama.cpp returned ${flat.length / 2} logits of ${nVocab}`);
            for (let i = 0; i < flat.length; i += 2)
                row[flat[i]] = flat[i + 1];
            onRow(row);
            result[3] = undefined;
        }
        return result;
    };
    Object.defineProperty(native, "sampleToken", { value: tap });
    return { context, sequence: context.getSequence() };
}

function logSoftmax(row, out) {
    let max = -Infinity;
    for (const v of row)
        if (!(v <= max)) // NaN too
            max = v;
    let sum = 0;
    for (const v of row)
        sum += Math.exp(v - max);
    const shift = max + Math.log(sum);
    for (let i = 0; i < row.length; i++)
        out[i] = row[i] - shift;
}

function openNpy(file, type, shape) {
    const out = openSync(file, "w");
    const header = `{'descr': '${type}', 'fortran_order': False, 'shape': (${shape.join(", ")}${shape.length === 1 ? "," : ""}), }`.padEnd(117) + "\n";
    writeSync(out, Buffer.concat([Buffer.from("\x93NUMPY\x01\x00", "latin1"), Buffer.from([header.length, 0]), Buffer.from(header)]));
    return out;
}

function readWindows(file) {
    const json = JSON.parse(readFileSync(file, "utf8"));
    return Array.isArray(json[0]) ? json : [json];
}

async function logits(opt) {
    const model = await getModel(opt.model);
    const windows = readWindows(opt.tokens);
    const first = Number(opt.first);
    const total = windows.reduce((n, w) => n + w.length - first, 0);
    const f32 = new Float32Array(model.fileInfo.metadata.tokenizer.ggml.tokens.length);
    const out = openNpy(opt.out, "<f4", [total, f32.length]);
    let rows = 0;
    const { context, sequence } = await openSequence(model, Math.max(...windows.map((w) => w.length)), opt, (row) => {
        logSoftmax(row, f32);
        writeSync(out, new Uint8Array(f32.buffer));
        rows++;
    });
    for (const tokens of windows) {
        await sequence.clearHistory();
        const input = tokens.map((id, i) => (i >= first ? [id, WANT_LOGITS] : id));
        for (let i = 0; i < input.length; i += opt.step ? 1 : input.length)
            await sequence.controlledEvaluate(opt.step ? [input[i]] : input);
    }
    await context.dispose();
    closeSync(out);
    if (rows !== total)
        fail(`${rows} rows of logits for ${total} tokens`);
}

// Fast: of a row only three numbers are fetched, because llama.cpp sorts a row before it hands it over
// whole. The sum of exp(logit - highest) is llama.cpp's, in single precision.
async function nll(opt) {
    const model = await getModel(opt.model);
    const windows = readWindows(opt.tokens);
    const first = Number(opt.first);
    const result = [];
    let pending = [];
    const logp = new Float64Array(model.fileInfo.metadata.tokenizer.ggml.tokens.length);
    const { context, sequence } = await openSequence(model, Math.max(...windows.map((w) => w.length)), opt, opt.fast ? null : (row) => {
        logSoftmax(row, logp);
        result.push(logp[pending.shift()]);
    });
    const want = (next) => (opt.fast ? { generateNext: { totalLogitWeight: true, token: true, options: { temperature: 0 },
        logits: { filter: { tokens: [next], includeSelected: true } } } } : WANT_LOGITS);
    for (const tokens of windows) {
        await sequence.clearHistory();
        pending = tokens.slice(first + 1);
        const scored = (i) => i >= first && i + 1 < tokens.length;
        const out = await sequence.controlledEvaluate(tokens.map((id, i) => (scored(i) ? [id, want(tokens[i + 1])] : id)));
        for (let i = first; opt.fast && i + 1 < tokens.length; i++) {
            const { token, logits, totalLogitWeight } = out[i].next;
            result.push(logits.get(pending.shift()) - logits.get(token) - Math.log(totalLogitWeight));
        }
        if (pending.length > 0)
            fail(`no logits for ${pending.length} positions`);
    }
    await context.dispose();
    if (result.some((x) => !(x <= 0)))
        fail("log-probabilities that are none");
    const out = openNpy(opt.out, "<f8", [result.length]);
    writeSync(out, new Uint8Array(Float64Array.from(result).buffer));
    closeSync(out);
}

async function generate(opt) {
    const model = await getModel(opt.model);
    const prompts = JSON.parse(readFileSync(opt.prompts, "utf8"));
    const n = Number(opt.n);
    const want = { generateNext: { token: true, options: { temperature: 0 } } };
    const results = [];
    for (const p of prompts) {
        const prompt = Array.isArray(p) ? p : [...(model.tokens.shouldPrependBosToken ? [model.tokens.bos] : []), ...model._model.tokenize(p, true)];
        const { context, sequence } = await openSequence(model, prompt.length + n, opt);
        const ids = [];
        let input = [...prompt.slice(0, -1), [prompt.at(-1), want]];
        while (ids.length < n) {
            const best = (await sequence.controlledEvaluate(input)).at(-1).next.token;
            if (model.isEogToken(best))
                break;
            ids.push(best);
            input = [[best, want]];
        }
        await context.dispose();
        results.push({ prompt: [...prompt], ids, text: model._model.detokenize(Uint32Array.from(ids), true) });
    }
    writeFileSync(opt.out, JSON.stringify(results));
}

async function tokenize(opt) {
    const model = await getModel(opt.model, true);
    const strings = JSON.parse(readFileSync(opt.strings, "utf8"));
    writeFileSync(opt.out, JSON.stringify(strings.map((s) => (s === "" ? [] : [...model._model.tokenize(s, !opt["no-special"])]))));
}

async function detokenize(opt) {
    const model = await getModel(opt.model, true);
    const lists = JSON.parse(readFileSync(opt.ids, "utf8"));
    writeFileSync(opt.out, JSON.stringify(lists.map((l) => model._model.detokenize(Uint32Array.from(l), !opt["no-special"]))));
}

async function pieces(opt) {
    const model = await getModel(opt.model, true);
    writeFileSync(opt.out, JSON.stringify({ bos: model.tokens.bos, eos: model.tokens.eos,
        add_bos: model.tokens.shouldPrependBosToken, add_eos: model.tokens.shouldAppendEosToken,
        n_vocab: model.fileInfo.metadata.tokenizer.ggml.tokens.length }));
}

const COMMANDS = {
    logits: [logits, ["model", "tokens", "out"]],
    nll: [nll, ["model", "tokens", "out"]],
    generate: [generate, ["model", "prompts", "n", "out"]],
    tokenize: [tokenize, ["model", "strings", "out"]],
    detokenize: [detokenize, ["model", "ids", "out"]],
    pieces: [pieces, ["model", "out"]],
};
const STRING = { type: "string" };
const OPTIONS = { model: STRING, tokens: STRING, prompts: STRING, strings: STRING, ids: STRING, out: STRING, first: { type: "string", default: "0" },
    n: { type: "string", short: "n" }, kv: { type: "string", default: "f32" }, flash: { type: "string", default: "off" },
    threads: { type: "string", default: "1" }, step: { type: "boolean" }, fast: { type: "boolean" }, special: { type: "boolean" },
    "no-special": { type: "boolean" }, help: { type: "boolean", short: "h" } };

async function runJob(argv) {
    const [name, ...rest] = argv;
    if (!(name in COMMANDS))
        fail(`unknown command ${name}; --help lists them`);
    const { values } = parseArgs({ args: rest, options: OPTIONS });
    const [run, required] = COMMANDS[name];
    for (const key of required)
        if (values[key] == null)
            fail(`${name}: --${key} is missing`);
    values.threads = Number(values.threads);
    const part = `${values.out}.part`; // a file that is there is whole
    await run({ ...values, out: part });
    renameSync(part, values.out);
}

const argv = process.argv.slice(2);
if (argv.length === 0 || argv.includes("--help") || argv.includes("-h")) {
    process.stdout.write(HELP);
    process.exit(argv.length === 0 ? 2 : 0);
}
try {
    for (const job of argv[0] === "jobs" ? JSON.parse(readFileSync(argv[1], "utf8")) : [argv])
        await runJob(job);
    await loaded.model?.dispose();
    await llama?.dispose();
} catch (e) {
    fail(e.stack ?? e);
}
process.exit(0);
