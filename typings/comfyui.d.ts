// What web/*.js uses of ComfyUI's front end.

interface Widget {
  name: string;
  value: unknown;
  serialize?: boolean;
}

interface Link {
  target_id: number;
}

interface Graph {
  id: string;
  links: Record<number, Link> & { get?(id: number): Link | undefined }; // a Map in newer front ends
  subgraphs?: Map<string, Graph>; // of the root graph
  getNodeById(id: number): GraphNode | null | undefined;
  setDirtyCanvas(foreground: boolean, background: boolean): void;
}

interface GraphNode {
  id: number;
  constructor: { nodeData?: { input: { required: Record<string, [unknown, Record<string, any>]> } } };
  type: string;
  comfyClass: string;
  title: string;
  size: [number, number];
  graph: Graph | null;
  subgraph?: Graph;
  widgets?: Widget[];
  outputs?: { type: string; links: number[] | null }[];
  hideOutputImages?: boolean;
  addDOMWidget(
    name: string, type: string, element: HTMLElement,
    options: { serialize: boolean; hideOnZoom: boolean; hideInPanel: boolean; getMinHeight(): number },
  ): Widget;
  removeWidget(widget: Widget): void;
  computeSize(): [number, number];
  setSize(size: [number, number]): void;
  getInputNode?(slot: number): GraphNode | null;
  findInputSlot(name: string): number;
  onDragOver?(event: DragEvent): boolean;
  onDragDrop?(event: DragEvent): Promise<boolean>;
}

interface SidebarTab {
  id: string;
  icon: string;
  title: string;
  label: string;
  tooltip: string;
  type: "custom";
  iconBadge?: string;
  render(parent: HTMLElement): void;
}

interface App {
  graph: Graph;
  rootGraph?: Graph; // newer front ends
  canvas: {
    processMouseWheel(event: WheelEvent): void;
    processMouseDown(event: PointerEvent): void;
    processMouseMove(event: PointerEvent): void;
    processMouseUp(event: PointerEvent): void;
  };
  ui: { settings: { addEventListener(event: string, act: (event: CustomEvent) => void): void } };
  reloadNodeDefs?(): Promise<void>; // newer front ends
  refreshComboInNodes(): Promise<void>;
  registerExtension(extension: {
    name: string;
    settings: { id: string; category: string[]; name: string; tooltip: string; type: "boolean"; defaultValue: boolean; onChange?(value: boolean, before?: boolean): void }[];
    init(): Promise<void>;
    setup(): Promise<void>;
    nodeCreated(node: GraphNode): void;
    afterConfigureGraph(): void;
  }): void;
  extensionManager: {
    dialog: {
      prompt(asked: { title: string; message: string; defaultValue: string }): Promise<string | null>;
      confirm(asked: { title: string; message: string; type: "delete"; itemList: string[] }): Promise<boolean | null>;
    };
    workflow: {
      activeWorkflow: { path: string } | null;
      $onAction(called: (action: { name: string; after: (act: () => void) => void }) => void): void; // a Pinia store
    };
    setting: { get(id: string): unknown };
    toast: { add(message: { severity: string; summary: string; detail: string; life: number }): void };
    getSidebarTabs(): SidebarTab[];
    registerSidebarTab(tab: SidebarTab): void;
  };
}

interface Api {
  fetchApi(path: string, options?: RequestInit): Promise<Response>;
  apiURL(path: string): string;
  clientId?: string;
  interrupt(prompt: string | null): Promise<void>;
  queuePrompt(number: number, prompt: object, ...more: unknown[]): Promise<{ prompt_id?: string }>;
  addEventListener(event: string, act: (event: CustomEvent) => void): void;
}

declare module "*/scripts/app.js" {
  export const app: App;
}

declare module "*/scripts/api.js" {
  export const api: Api;
}
