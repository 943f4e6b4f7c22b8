/** Something about a host that keeps a runtime from working (error), or from working well (warning). */
export interface Finding {
  /** Kebab-case, stable. */
  code: string;
  severity: "error" | "warning";
  /** What is wrong, why it matters, what to do, and whether that needs a reboot. */
  message: string;
  /** The fix takes effect only after a reboot, and the installer never reboots. */
  needsReboot: boolean;
}

export const error = (code: string, message: string): Finding => ({
  code,
  severity: "error",
  message,
  needsReboot: false,
});
export const warning = (code: string, message: string): Finding => ({
  code,
  severity: "warning",
  message,
  needsReboot: false,
});
