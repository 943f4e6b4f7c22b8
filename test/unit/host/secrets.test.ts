import * as fc from "fast-check";
import { parse } from "smol-toml";
import { describe, expect, test } from "vitest";
import { withoutSecrets } from "../../../node-installer/host/secrets.ts";

const secret = "hunter2";
const hidden: [string, string][] = [
  ["a registry's password", '[plugins.cri.registry.configs."r".auth]\n  username = "u"\n  password = "hunter2"\n'],
  ["with single quotes and no spaces", "password='hunter2'\n"],
  ["a quoted key", '"identitytoken" = "hunter2"\n'],
  ["a dotted key in an inline table", 'configs = { "r" = { auth.password = "hunter2" } }\n'],
  ["auth as a table's value", 'configs = { r = { auth = { username = "u", password = "hunter2" } } }\n'],
  ["text over several lines", 'password = """\nhunter2\n"""\n'],
  ["escaped quotes", 'password = "a\\"hunter2"\n'],
  ["headers of any name", '[host."https://r".header]\n  x-own = ["a", "hunter2]"]\n  y = "hunter2"\n'],
  ["old headers", "[plugins.cri.registry.headers]\n  X-Meta-Source = ['hunter2']\n"],
  ["a header over several lines", '[host.r.header]\n  x-own = [\n    "a",\n    "hunter2",\n  ]\n'],
  ["headers in one line", 'header = ["Basic hunter2", "b"]\n'],
  ["a proxy's user in a unit", 'Environment="HTTPS_PROXY=http://u:hunter2@proxy:3128" "NO_PROXY=10.0.0.0/8"\n'],
  ["a proxy's user in a mirror", 'endpoint = ["https://u:hunter2@r.example"]\n'],
  ["a cloud's key in a unit", "Environment=AWS_SECRET_ACCESS_KEY=hunter2\n"],
  ["a joining token in YAML", "server: https://10.0.0.1:6443\ntoken: hunter2\n"],
  ["a joining token in a unit", "ExecStart=/usr/local/bin/k3s agent '--token' 'hunter2' '--node-label' 'a=b'\n"],
  ["a joining token with an equals sign", "ExecStart=/usr/local/bin/k3s agent --token=hunter2\n"],
  ["JSON", '{"auths": {"r": {"auth": "hunter2"}}, "x": 1}\n'],
  ["a private key", 'key = """\n-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\n"""\n'],
];

test.each(hidden)("%s is hidden", (_, text) => {
  expect(text).toContain(secret);
  const clean = withoutSecrets(text);
  expect(clean).not.toContain(secret);
  expect(clean).toContain("REDACTED");
  expect(withoutSecrets(clean)).toBe(clean);
});

test.each([
  'runtime_type = "io.containerd.runc.v2"\n',
  "authentication:\n  webhook:\n    enabled: true\n",
  "authorization:\n  mode: Webhook\n",
  "enable_token = false\n",
  'config_path = "/etc/containerd/certs.d"\n',
  "runtimeRequestTimeout: 5m0s\n",
  "Environment=NO_PROXY=10.0.0.0/8,.svc\n",
  '[host.r.header]\n[host.other]\n  ca = "/etc/ca.crt"\n',
])("nothing else is touched: %j", (text) => {
  expect(withoutSecrets(text)).toBe(text);
});

describe("TOML stays TOML", () => {
  const word = fc.stringMatching(/^[a-z]{1,6}$/);
  const value = fc.oneof(
    fc.string().map((text) => JSON.stringify(text)),
    word.map((text) => `'${text}'`),
    fc.array(word, { maxLength: 3 }).map((words) => JSON.stringify(words)),
    fc.constantFrom("true", "false", "12", "-1"),
  );
  const key = fc.oneof(word, fc.constantFrom("password", "auth-x", "header", "token_ttl", "identitytoken", "AUTH"));
  const table = fc.tuple(word, fc.uniqueArray(fc.tuple(key, value), { selector: ([name]) => name, maxLength: 5 }));
  const shape = (document: unknown): unknown =>
    typeof document === "object" && document !== null && !Array.isArray(document)
      ? Object.fromEntries(Object.entries(document).map(([name, part]) => [name, shape(part)]))
      : typeof document;

  test("with the same keys, whatever their values", () => {
    fc.assert(
      fc.property(fc.uniqueArray(table, { selector: ([name]) => name, maxLength: 4 }), (tables) => {
        const lines = tables.flatMap(([name, pairs]) => [`[${name}]`, ...pairs.map(([at, is]) => `${at} = ${is}`)]);
        const text = `${lines.join("\n")}\n`;
        expect(shape(parse(withoutSecrets(text)))).toEqual(shape(parse(text)));
      }),
    );
  });
});
