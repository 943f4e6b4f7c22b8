import { describe, expect, test } from "vitest";
import { locate } from "../../../../node-installer/containerd/locate.ts";
import { importing, k3sFolder, nodeOf, refusal, unitText, v2 } from "./nodes.ts";

// What the unit really starts, and which of several files is the place.

describe("overrides that contradict it are refused, with both values:", () => {
  const command = "/usr/bin/containerd --config /data/c.toml --address /data/c.sock";
  const containerd = { "/usr/lib/systemd/system/containerd.service": unitText(command) };
  const others = { "/etc/systemd/system/kubelet.service": unitText("/usr/bin/kubelet --config=/var/lib/kubelet/c") };
  test.each<[string, object, string, RegExp]>([
    [
      "another file",
      { configPath: "/etc/containerd/config.toml" },
      "configuration-path-unread",
      /is \/etc\/containerd\/config\.toml, but containerd reads \/data\/c\.toml \(\/usr\/lib\/systemd/,
    ],
    [
      "another socket",
      { socket: "/run/containerd/containerd.sock" },
      "socket-not-listened-on",
      /is \/run\/containerd\/containerd\.sock, but containerd listens on \/data\/c\.sock/,
    ],
    ["another program's unit", { unit: "kubelet.service" }, "unit-of-another-program", /starts \/usr\/bin\/kubelet/],
  ])("%s", async (_, override, code, message) => {
    const host = nodeOf("containerd", { files: { ...containerd, ...others } });
    const refused = await refusal(locate(host, { name: "containerd", ...override }));
    expect(refused.code).toBe(code);
    expect(refused.message).toMatch(message);
    const agreeing = { configPath: "/data/c.toml", socket: "/data/c.sock", unit: "containerd.service" };
    expect((await locate(host, { name: "containerd", ...agreeing })).file).toBe("/data/c.toml");
  });
});

describe("the running process", () => {
  const running = (command: string, unit = unitText("/opt/start-containerd.sh")) => {
    const host = nodeOf("containerd", {
      files: {
        "/usr/lib/systemd/system/containerd.service": unit,
        "/proc/17/cmdline": command.split(" ").join("\0"),
      },
    });
    host.programs.set("systemctl", ([verb]) => (verb === "show" ? { stdout: "MainPID=17\n" } : { code: 3 }));
    return host;
  };

  test("says what a script starts, and an override against it is refused", async () => {
    const host = running("/opt/bin/containerd --config /data/c.toml");
    expect(await locate(host, { name: "containerd" })).toMatchObject({
      file: "/data/c.toml",
      binary: "/opt/bin/containerd",
    });
    const other = locate(host, { name: "containerd", configPath: "/etc/containerd/config.toml" });
    expect((await refusal(other)).message).toContain("/data/c.toml (process 17)");
  });

  test("that was started with another file than the unit says by now is named", async () => {
    const host = running("/usr/bin/containerd", unitText("/usr/bin/containerd --config /data/c.toml"));
    const refused = await refusal(locate(host, { name: "containerd" }));
    expect(refused.code).toBe("daemon-started-otherwise");
    expect(refused.message).toMatch(
      /reads? \/data\/c\.toml, but the running one \(process 17\) reads \/etc\/containerd/,
    );
  });

  test("that is no containerd says nothing", async () => {
    const host = running("/bin/sh /opt/start-containerd.sh --config /data/c.toml");
    expect((await locate(host, { name: "containerd" })).file).toBe("/etc/containerd/config.toml");
  });
});

test.each([
  ["the unit's own", { unit: 'Environment=A=b "CONTAINERD_CONFIG=/etc/containerd/other.toml"\n', files: {} }],
  [
    "a drop-in's",
    {
      unit: "Environment=CONTAINERD_CONFIG=/usr/share/containerd/config.toml\n",
      files: {
        "/etc/systemd/system/containerd.service.d/a.conf":
          "[Service]\nEnvironment=CONTAINERD_CONFIG=/etc/containerd/other.toml\n",
      },
    },
  ],
  [
    "a file's, which may be missing",
    {
      unit: "Environment=CONTAINERD_CONFIG=/x\nEnvironmentFile=-/run/gone\nEnvironmentFile=-/etc/default/%N\n",
      files: { "/etc/default/containerd": "# a file\nCONTAINERD_CONFIG='/etc/containerd/other.toml'\n" },
    },
  ],
])("variables of its command: %s", async (_, { unit, files }) => {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: as Flatcar's unit writes it
  const text = unitText("/usr/bin/env PATH=${BIN_DIR}:${PATH} ${BIN_DIR}/containerd --config ${CONTAINERD_CONFIG}");
  const host = nodeOf("containerd", {
    files: {
      "/usr/lib/systemd/system/containerd.service": text.replace(
        "[Service]\n",
        `[Service]\nEnvironment=BIN_DIR=/opt/bin\n${unit}`,
      ),
      ...files,
    },
  });
  expect(await locate(host, { name: "containerd" })).toMatchObject({
    file: "/etc/containerd/other.toml",
    binary: "/opt/bin/containerd",
  });
});

test("the socket that its file names", async () => {
  const files = { "/etc/containerd/config.toml": `${v2}[grpc]\naddress = "/data/c.sock"\n` };
  expect((await locate(nodeOf("containerd", { files }), { name: "containerd" })).socket).toBe("/data/c.sock");
  const other = locate(nodeOf("containerd", { files }), {
    name: "containerd",
    socket: "/run/containerd/containerd.sock",
  });
  expect((await refusal(other)).message).toContain("/data/c.sock (/etc/containerd/config.toml)");
});

test.each([
  // biome-ignore lint/suspicious/noTemplateCurlyInString: as a unit writes it
  ["containerd", "/usr/lib/systemd/system/containerd.service", "${TORCX_BINDIR}/containerd", /from a variable/],
  [
    "containerd",
    "/usr/lib/systemd/system/containerd.service",
    "/opt/start --token SECRET",
    /starts \/opt\/start, which/,
  ],
  ["k3s", "/etc/systemd/system/k3s.service", "/usr/local/bin/k3s agent --token SECRET", /in its data directory/],
] as const)(
  "a containerd that does not answer, of %s in %s: why, and no argument",
  async (name, path, command, why) => {
    const host = nodeOf(name, { files: { [path]: unitText(command) } });
    host.programs.delete("containerd");
    const { code, message } = await refusal(locate(host, { name }));
    expect(code).toBe("containerd-missing");
    expect(message).toMatch(why);
    expect(message).not.toContain("SECRET");
  },
);

describe("the file that holds our tables already", () => {
  const template = `${k3sFolder}/config-v3.toml.tmpl`;
  const dropIn = `${k3sFolder}/config-v3.toml.d/contrast-runtime.toml`;
  const upgraded = (files: Record<string, string>, version = "2.2.9") =>
    nodeOf("k3s", {
      version,
      files: { [`${k3sFolder}/config.toml`]: importing(`${k3sFolder}/config-v3.toml.d`), ...files },
    });

  test("stays the place after an upgrade that brings drop-ins, for k3s still renders it", async () => {
    const host = upgraded({ [template]: '{{ template "base" . }}{{/* made by contrast-runtime */}}\n' });
    expect(await locate(host, { name: "k3s" }, template)).toMatchObject({ kind: "template", file: template });
    expect((await locate(host, { name: "k3s" })).file).toBe(dropIn);
  });

  test("is not the place any more if it is gone, or if k3s renders another version's template", async () => {
    expect((await locate(upgraded({}), { name: "k3s" }, template)).file).toBe(dropIn);
    const older = `${k3sFolder}/config.toml.tmpl`;
    const host = upgraded({ [older]: '{{ template "base" . }}\n', [template]: '{{ template "base" . }}\n' });
    expect((await locate(host, { name: "k3s" }, older)).file).toBe(dropIn);
  });
});
