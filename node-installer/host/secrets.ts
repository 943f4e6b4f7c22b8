/**
 * Redacts secrets in a node's files before they leave it, and keeps everything else: a TOML file stays valid with the same
 * keys, so that a plan made from it is the node's. It redacts too much rather than too little, because no plan depends on
 * these values.
 */
export function withoutSecrets(text: string): string {
  return text
    .replace(pemBlock, "$1REDACTED$2")
    .replace(headerTable, (_, header: string, body: string) => header + body.replace(anyValue, `$1${blot}`))
    .replace(flagValue, "$1REDACTED")
    .replace(secretValue, (_, before: string, value: string) => before + blotted(value))
    .replace(userinfo, "$1REDACTED@");
}

const blot = '"REDACTED"';
const string = String.raw`"""[\s\S]*?"""|'''[\s\S]*?'''|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'`;
/** Strings inside may contain the closing bracket. */
const array = String.raw`\[(?:${string}|[^\]"'])*\]`;
/** Also as a part of a longer name: `AWS_SECRET_ACCESS_KEY`, `x-registry-auth`, `K3S_TOKEN`. */
const secretName = String.raw`[\w.-]*(?:pass(?:word|wd|phrase)|token|secret|auth|credential|api[_-]?key|access[_-]?key|private[_-]?key|header)[\w.-]*`;

/** `key = "…"`, `key: …`, `KEY=…` in TOML, YAML, JSON and systemd. Numbers and booleans are not secret; a path may be. */
const secretValue = new RegExp(
  String.raw`((?<![\w.-])${secretName}["']?[ \t]*[=:][ \t]*)(${string}|${array}|(?![{\["'])[^\s,;"'}\]]+)`,
  "gi",
);
const blotted = (value: string): string => {
  if (/^(?:true|false|[+-]?\d[\d_.]*)$/i.test(value)) return value;
  if (value.startsWith("[")) return `[${blot}]`;
  return /^["']/.test(value) ? blot : "REDACTED";
};

/** `--token abc`, `'--token' 'abc'`; with `=` it is matched as above. */
const flagValue = new RegExp(String.raw`(--?${secretName}["']?[ \t]+["']?)(?!-)[^\s"']+`, "gi");

/** `[host."https://registry".header]`: whatever its keys are called. */
const headerTable = /(^[ \t]*\[[^\]\n]*\bheaders?["']?[ \t]*\][^\n]*\n)((?:(?![ \t]*\[)[^\n]*\n?)*)/gim;
const anyValue = new RegExp(String.raw`(=[ \t]*)(?:${string}|${array})`, "g");

/** `https://user:password@proxy` */
const userinfo = /(:\/\/)[^/\s"'@]+@/g;
const pemBlock = /(-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g;
