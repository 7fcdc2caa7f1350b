// What javascript/ti_train.js uses of a WebUI's page.

declare function gradioApp(): Document;
declare function onUiLoaded(callback: () => void): void;
declare function requestProgress(
  id: string, place: Element | null, gallery: Element | null, atEnd: () => void, onProgress: () => void,
): void;
