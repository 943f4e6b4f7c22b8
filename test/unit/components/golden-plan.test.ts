import { readdirSync, readFileSync } from "node:fs";
import { afterAll, describe, expect, test, vi } from "vitest";
import { stringify } from "yaml";
import { localNetworkVariable } from "../../../runtime/names.ts";
import { secretCommands, withSecrets } from "../../example-secrets.ts";
import { expectGolden } from "../../golden-file.ts";
import { type Recorded, record } from "../../recorded-program.ts";

/** What the stand-in for the image's layout, and the local cluster's command, say in these plans. */
const imageDigest = `sha256:${"0".repeat(64)}`;
const clusterResult = {
  kubeconfig: "kubeconfig of the local cluster",
  registry: "10.0.0.1:5000",
  networkNamespace: "",
  images: {},
};

vi.mock(import("../../../components/config/image-layout.ts"), async (original) => ({
  ...(await original()),
  readImageIndex: async () => ({ mediaType: "", digest: imageDigest, size: 0 }),
}));

/** The payloads of npm start are made on the user's machine: fixtures stand for them. */
const payloads = {
  ".local/payloads/local/manifest.json": "test/fixtures/manifests/fixture-local.json",
  ".local/payloads/metal-qemu-insecure/manifest.json": "test/fixtures/manifests/fixture-kata-go.json",
};

/** A stack's file as the engine would hand it over: with the secrets that its head asks for, structured values as JSON. */
function engineConfiguration(file: string): { config: Record<string, string>; secretKeys: string[] } {
  const example = readFileSync(file, "utf8");
  const { config } = withSecrets(example, (name) => (name === "pullSecret" ? '{"auths": {}}' : `decrypted ${name}`));
  const secretKeys = secretCommands(example).map(({ path }) => `contrast-runtime:${path.split(".")[0]}`);
  let text = JSON.stringify(config);
  for (const [payload, fixture] of Object.entries(payloads)) text = text.replaceAll(payload, fixture);
  const entries = Object.entries(JSON.parse(text) as Record<string, unknown>);
  const defaults = { "contrast-runtime:installerImage": "local", "contrast-runtime:registry": "{}" };
  const own = Object.fromEntries(
    entries.map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
  );
  return { config: { ...defaults, ...own }, secretKeys };
}

async function planOf(file: string, stack: string): Promise<Recorded[]> {
  vi.resetModules();
  // A local cluster's stack is updated in the cluster's network.
  vi.stubEnv(localNetworkVariable, stack);
  return await record(() => import("../../../index.ts"), {
    stack,
    ...engineConfiguration(file),
    call: () => ({
      kubeconfigs: [{ name: "", value: Buffer.from("kubeconfig of AKS").toString("base64") }],
      properties: { state: "Registered" },
    }),
    outputs: ({ type, name }) =>
      type === "command:local:Command" && name === "cluster" ? { stdout: JSON.stringify(clusterResult) } : {},
  });
}

const examples = readdirSync("examples").flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? []);
const ours = ["dev", "dev-vm"].map((name) => [name, `Pulumi.${name}.yaml`]);
const stacks = [...ours, ...examples.map((name) => [name, `examples/Pulumi.${name}.yaml`])] as [string, string][];

describe("what each stack registers", () => {
  test.each(stacks)("%s is as reviewed", async (stack, file) => {
    const plan = await planOf(file, stack);
    expectGolden(`${stack}.yaml`, stringify(plan, { lineWidth: 0, sortMapEntries: false }));
  });

  test.each(stacks)("%s is the same the second time", async (stack, file) => {
    expect(await planOf(file, stack)).toEqual(await planOf(file, stack));
  });

  test.each(stacks)("%s holds nothing of this machine", async (stack, file) => {
    const text = JSON.stringify(await planOf(file, stack));
    expect(text).not.toContain(process.cwd());
    expect(text).not.toContain(process.env.HOME);
  });
});

afterAll(() => vi.restoreAllMocks());
