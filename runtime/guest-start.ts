/** What the shim needs around the time that it gives the guest: the network, the VMM, the mounts. */
export const startMarginSeconds = 60;

/** How long a runtime waits for its guest, as its Kata configuration says: the Go runtime's key, or runtime-rs's. */
export function dialSecondsOf(kataConfiguration: string): number | undefined {
  const seconds = /^dial_timeout = (\d+)$/m.exec(kataConfiguration)?.[1];
  if (seconds !== undefined) return Number(seconds);
  const milliseconds = /^reconnect_timeout_ms = (\d+)$/m.exec(kataConfiguration)?.[1];
  return milliseconds === undefined ? undefined : Math.ceil(Number(milliseconds) / 1000);
}
