import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { healthPort } from "../../runtime/names.ts";
import { environmentOf } from "../install/environment.ts";
import { createLog } from "../install/log.ts";
import { readSpec } from "../install/read-spec.ts";
import { watchLoop } from "../install/watch-loop.ts";
import { connectKubernetes, withoutKubernetes } from "../kubernetes/connect.ts";
import { type Options, openHost } from "./context.ts";

/** What the DaemonSet runs. SIGTERM ends it after the current change, and uninstalls nothing. */
export async function watch(options: Options): Promise<number> {
  const first = await readSpec(options.spec);
  const { group, atOnce, startupTaint } = first.spec;
  const host = openHost(options);
  const log = createLog(host, group, options.print);
  const now = () => host.now();
  const cluster = options.kubernetes
    ? connectKubernetes(
        {
          group,
          atOnce,
          startupTaint,
          now,
          uptime: () => host.uptime(),
          delay: (ms) => host.delay(ms),
          onError: (error) => log.warn("kubernetes", { reason: error.message }),
        },
        process.env,
      )
    : withoutKubernetes(now);

  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => stop.abort());
  const health = options.kubernetes ? await serve() : undefined;
  try {
    await watchLoop({
      host,
      log,
      cluster,
      signal: stop.signal,
      readSpec: () => readSpec(options.spec),
      environment: (spec) => ({
        ...environmentOf(spec, {
          host,
          log,
          payloads: options.payloads,
          guestRegistry: options.guestRegistry,
          cluster,
        }),
        signal: stop.signal,
      }),
      sleep: (ms) => sleep(ms, undefined, { signal: stop.signal }).catch(() => undefined),
    });
    return 0;
  } finally {
    cluster.reporter.close();
    await health?.close();
    await log.flush();
  }

  async function serve() {
    const { serveHealth } = await import("../kubernetes/health.ts");
    return serveHealth({
      port: healthPort,
      group,
      nodeName: cluster.nodeName ?? hostname(),
      status: () => cluster.reporter.current(),
      metrics: cluster.metrics,
      bundle: {
        mayRead: cluster.mayReadBundle,
        async take() {
          const { takeSnapshot } = await import("./snapshot.ts");
          const { spec } = await readSpec(options.spec);
          return `${JSON.stringify(await takeSnapshot(host, spec, cluster.nodeName ?? hostname()))}\n`;
        },
      },
    });
  }
}
