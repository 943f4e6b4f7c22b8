import { expect, test } from "vitest";
import { armGuard, commitGuard, removeGuard } from "../../../../node-installer/host/guard.ts";
import { MemoryHost } from "../../../fakes/memory-host.ts";
import { enableUnits } from "../../../fakes/systemctl.ts";

// How the guard is put on the host and taken off it; guard.test.ts runs the script itself.
const after = "a".repeat(64);

test("waits at boot for the file's disk, and is removed together with what an interrupted guard left", async () => {
  const host = hostWithSystemd();
  for (const directory of ["/var/lib/contrast-runtime", "/etc/systemd/system"])
    await host.makeDirectory(directory, 0o755);
  const file = "/var/lib/rancher/my disk 100%/agent/config.toml.tmpl";
  await armGuard(host, "k3s.service", {
    file,
    before: undefined,
    after,
    backup: undefined,
    unit: undefined,
    added: [],
  });
  const unit = host.text("/etc/systemd/system/contrast-runtime-guard.service");
  expect(unit).toContain(
    '\nRequiresMountsFor=/var/lib/contrast-runtime "/var/lib/rancher/my disk 100%%/agent"\nBefore=k3s.service\n',
  );
  host.put("/var/lib/contrast-runtime/guard.firing", "");
  await commitGuard(host);
  await removeGuard(host);
  expect(host.tree()).toEqual({});
});

test("killed at any point of its arming or its removal, it is known to be there and removed without a trace", async () => {
  const order = { file: "/etc/x", before: undefined, after, backup: undefined, unit: undefined, added: [] };
  for (let at = 1, done = false; !done; at += 1) {
    const host = hostWithSystemd();
    for (const directory of ["/var/lib/contrast-runtime", "/etc/systemd/system"])
      await host.makeDirectory(directory, 0o755);
    host.onPoint = (_, when) => {
      if (when === "after" && host.points.length === at + 2) host.kill();
    };
    try {
      await armGuard(host, "containerd.service", order);
      await commitGuard(host);
      await removeGuard(host);
      done = true;
    } catch (error) {
      // Nothing but the kill may end it, or this would never end.
      if (host.alive) throw error;
      host.revive();
      await commitGuard(host);
      await removeGuard(host);
    }
    expect(host.tree(), host.points.join("\n")).toEqual({});
  }
});

const hostWithSystemd = () =>
  new MemoryHost({
    programs: {
      systemctl: (args, host) => {
        enableUnits(args, host);
        return {};
      },
    },
  });

test("is on the disk with all that starts it, and its timer runs, before there is an order", async () => {
  const host = hostWithSystemd();
  for (const directory of ["/var/lib/contrast-runtime", "/etc/systemd/system"])
    await host.makeDirectory(directory, 0o755);
  host.settle();
  const order = {
    file: "/etc/x",
    before: undefined,
    after,
    backup: undefined,
    unit: undefined,
    added: [],
  };
  await armGuard(host, "containerd.service", order);
  expect(host.unsynced()).toEqual([]);
  const ordered = host.points.indexOf("rename /var/lib/contrast-runtime/guard.armed");
  const units = [
    "enable contrast-runtime-guard.service contrast-runtime-guard.timer",
    "restart contrast-runtime-guard.timer",
  ];
  for (const verb of units) {
    expect(host.points).toContain(`run systemctl ${verb}`);
    expect(host.points.indexOf(`run systemctl ${verb}`)).toBeLessThan(ordered);
  }
  await commitGuard(host);
  expect(host.unsynced()).toEqual([]);
});
